"""Freezing replaces the selected layers and nothing else."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from quant_parts import LAYERS, calibrated, outputs, quantized, relative_error, tiny_policy
from torch import nn

from duqsweep.errors import ConfigError, EvaluationError
from duqsweep.quant.calibrate import LayerStats
from duqsweep.quant.freeze import freeze
from duqsweep.quant.linear import DuQuantLinear
from duqsweep.quant.select import select_layers
from duqsweep.spec import LayerRule, QuantSpec


def test_sixteen_bits_everywhere_are_bit_equal_to_the_unquantized_policy() -> None:
    policy = tiny_policy()
    quant = QuantSpec(rules=(LayerRule("proj", 16, 16),))
    bits = select_layers(quant, {name: (64, 64) for name in LAYERS})
    freeze(policy, bits, quant, calibrated(policy, quant, bits), None, "tiny")
    assert not any(isinstance(module, DuQuantLinear) for module in policy.modules())
    assert torch.equal(outputs(policy), outputs(tiny_policy()))


def test_only_selected_layers_are_replaced() -> None:
    policy = quantized(QuantSpec(), layers=LAYERS[:1])
    assert isinstance(policy.get_submodule(LAYERS[0]), DuQuantLinear)
    assert type(policy.get_submodule(LAYERS[1])) is nn.Linear


def test_the_unquantized_weights_are_not_written_to() -> None:
    original = tiny_policy()
    shared = copy.copy(original.layers[0].up_proj)  # another module around the same tensors
    before = shared.weight.detach().clone()
    bits = dict.fromkeys(LAYERS, (4, 8))
    quant = QuantSpec(permutation="none", row_rotation=True, smoothing=0.5)
    freeze(original, bits, quant, calibrated(original, quant, bits), None, "tiny")
    assert torch.equal(shared.weight, before)


def test_a_frozen_policy_keeps_no_copy_of_the_full_weight() -> None:
    layer = quantized(QuantSpec()).get_submodule(LAYERS[0])
    assert sum(buffer.numel() for buffer in layer.buffers()) == 64 * 128 + 128 + 64 + 16 * 16
    assert not list(layer.parameters())


def test_freezing_is_deterministic() -> None:
    quant = QuantSpec(rotation="svd", smoothing=0.5)
    assert torch.equal(outputs(quantized(quant)), outputs(quantized(quant)))


@pytest.mark.parametrize(
    "change", [{"act_scale": "static"}, {"rotation": "svd"}, {"smoothing": 0.5}]
)
def test_e4m3_is_simulated_with_every_method(change: dict[str, object]) -> None:
    exact = outputs(tiny_policy())
    quant = QuantSpec(number_format="e4m3", **change)  # type: ignore[arg-type]
    found = outputs(quantized(quant, (8, 8)))
    integers = outputs(quantized(dataclasses.replace(quant, number_format="integer"), (8, 8)))
    assert not torch.equal(found, integers)
    assert relative_error(found, exact) <= 0.06


def test_not_a_number_in_a_weight_is_refused() -> None:
    policy = tiny_policy()
    with torch.no_grad():
        policy.get_submodule(LAYERS[0]).weight[0, 0] = torch.nan
    bits, quant = {LAYERS[0]: (8, 8)}, QuantSpec(kernel="fp8")
    stats = {LAYERS[0]: LayerStats(torch.ones(64), None)}
    with pytest.raises(EvaluationError, match="holds NaN or infinity"):
        freeze(policy, bits, quant, stats, None, "tiny")


def test_missing_statistics_are_an_error() -> None:
    bits = {LAYERS[0]: (4, 8)}
    with pytest.raises(EvaluationError, match="no calibration statistics"):
        freeze(tiny_policy(), bits, QuantSpec(), {}, None, "tiny")
    stats = {LAYERS[0]: LayerStats(torch.ones(64), None)}
    with pytest.raises(EvaluationError, match="without the static scales"):
        freeze(tiny_policy(), bits, QuantSpec(act_scale="static"), stats, None, "tiny")


def test_nan_in_a_weight_is_an_error() -> None:
    policy = tiny_policy()
    with torch.no_grad():
        policy.layers[0].up_proj.weight[0, 0] = torch.nan
    stats = {LAYERS[0]: LayerStats(torch.ones(64), None)}
    with pytest.raises(EvaluationError, match=r"up_proj.*NaN"):
        freeze(policy, {LAYERS[0]: (4, 8)}, QuantSpec(), stats, None, "tiny")


def test_a_block_that_does_not_divide_the_real_width_is_an_error() -> None:
    stats = {LAYERS[0]: LayerStats(torch.ones(64), None)}
    with pytest.raises(ConfigError, match="block_size 128 does not divide"):
        freeze(tiny_policy(), {LAYERS[0]: (4, 8)}, QuantSpec(block_size=128), stats, None, "tiny")
