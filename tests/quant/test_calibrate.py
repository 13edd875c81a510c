"""Calibration observes every input of the selected layers, and does not change the policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quant_parts import LAYERS, inputs, tiny_policy

from duqsweep.errors import EvaluationError
from duqsweep.quant.calibrate import calibrate
from duqsweep.spec import QuantSpec

BITS = dict.fromkeys(LAYERS, (4, 8))


def test_the_maximum_counts_every_forward() -> None:
    policy = tiny_policy()
    batches = [inputs(seed=seed) for seed in range(3)]

    def run() -> None:
        for batch in batches:
            policy(batch)

    stats = calibrate(policy, BITS, QuantSpec(), run)
    wanted = torch.stack(batches).abs().reshape(-1, 64).amax(0)
    assert torch.equal(stats[LAYERS[0]].act_max, wanted)
    assert stats[LAYERS[0]].percentile is None
    assert not any(module._forward_pre_hooks for module in policy.modules())


def test_percentiles_belong_to_the_transformed_channels() -> None:
    policy = tiny_policy()
    batches = [inputs(seed=seed) for seed in range(2)]

    def run() -> None:
        for batch in batches:
            policy(batch)

    quant = QuantSpec(act_scale="static", act_percentile=90.0, permutation="none")
    found = calibrate(policy, BITS, quant, run)[LAYERS[0]].percentile
    hadamard = np.ones((1, 1))
    for _ in range(4):
        hadamard = np.kron([[1, 1], [1, -1]], hadamard)
    wanted = np.zeros(64)
    for batch in batches:
        blocks = batch.reshape(-1, 4, 16).double().numpy() @ (hadamard / 4)
        wanted = np.maximum(wanted, np.percentile(np.abs(blocks), 90, axis=0).reshape(-1))
    assert found is not None
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_static_scales_are_not_measured_for_full_precision_activations() -> None:
    policy = tiny_policy()
    bits = {LAYERS[0]: (4, 16), LAYERS[1]: (4, 8)}
    quant = QuantSpec(act_scale="static")
    stats = calibrate(policy, bits, quant, lambda: policy(inputs()))
    assert stats[LAYERS[0]].percentile is None
    assert stats[LAYERS[1]].percentile is not None


def test_nothing_selected_runs_nothing() -> None:
    assert calibrate(tiny_policy(), {}, QuantSpec(), lambda: pytest.fail("ran")) == {}


def test_a_layer_without_input_is_an_error() -> None:
    policy = tiny_policy()
    with pytest.raises(EvaluationError, match=r"down_proj.* got no input"):
        calibrate(policy, BITS, QuantSpec(), lambda: policy.layers[0].up_proj(inputs()))


def test_nan_in_an_input_is_an_error_and_hooks_are_gone() -> None:
    policy = tiny_policy()
    with pytest.raises(EvaluationError, match="NaN"):
        calibrate(policy, BITS, QuantSpec(), lambda: policy(inputs() * torch.nan))
    assert not any(module._forward_pre_hooks for module in policy.modules())


def test_a_name_that_is_no_linear_layer_is_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"no layer 'layers\.7'"):
        calibrate(tiny_policy(), {"layers.7": (4, 8)}, QuantSpec(), lambda: None)
    with pytest.raises(EvaluationError, match="ModuleList, not a Linear"):
        calibrate(tiny_policy(), {"layers": (4, 8)}, QuantSpec(), lambda: None)
