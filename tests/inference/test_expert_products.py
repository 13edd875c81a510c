"""Merged quantized layers against the layers that `freeze` makes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.inference.expert_products import MergedLinears
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.spec import LayerRule, QuantSpec

WIDTH, TOKENS = 32, 200
RULES = (LayerRule(include="", weight_bits=4, act_bits=8),)
MERGED = MergedLinears()


def frozen(quant: QuantSpec, inputs: Tensor) -> nn.ModuleDict:
    torch.manual_seed(0)
    layers = {name: nn.Linear(WIDTH, out, bias=False) for name, out in (("q", 48), ("k", 16))}
    module = nn.ModuleDict(layers)
    bits = dict.fromkeys(layers, (4, 8))

    def run() -> None:
        for layer in layers.values():
            layer(inputs)

    freeze(module, bits, quant, calibrate(module, bits, quant, run), None, "test")
    return module


def outliers() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(TOKENS, WIDTH) * torch.linspace(0.1, 5.0, WIDTH)[torch.randperm(WIDTH)]


SETTINGS = [
    QuantSpec(rules=RULES),
    QuantSpec(rules=RULES, permutation="none"),
    QuantSpec(rules=RULES, rotation="none"),
]


@pytest.mark.parametrize("quant", SETTINGS)
@torch.no_grad()
def test_exit_is_the_frozen_layer(quant: QuantSpec) -> None:
    rows = outliers()
    module = frozen(quant, rows)
    torch.testing.assert_close(MERGED.exit(module["q"])(rows), module["q"](rows))


@pytest.mark.parametrize("quant", SETTINGS)
@torch.no_grad()
def test_gated_exit_is_gelu_then_gate_then_the_frozen_layer(quant: QuantSpec) -> None:
    gate, up = outliers(), torch.randn(TOKENS, WIDTH)
    rows = nn.functional.gelu(gate, approximate="tanh") * up
    module = frozen(quant, rows)
    found = MERGED.gated_exit(module["q"])(torch.cat([gate, up], dim=-1))
    torch.testing.assert_close(found, module["q"](rows))


@torch.no_grad()
def test_entry_is_residual_then_norm_then_the_frozen_layers() -> None:
    x, update = outliers(), torch.randn(TOKENS, WIDTH)
    gate, factor, shift = torch.randn(3, WIDTH)
    stream = x + update * gate
    normed = nn.functional.rms_norm(stream, (WIDTH,), eps=1e-6) * factor + shift
    module = frozen(QuantSpec(rules=RULES), normed)
    total, product = MERGED.entry([module["q"], module["k"]])(x, update, gate, factor, shift)
    expected = torch.cat([module["q"](normed), module["k"](normed)], dim=-1)
    torch.testing.assert_close(total, stream)
    torch.testing.assert_close(product, expected)


@pytest.mark.parametrize(
    ("quant", "reason"),
    [
        (QuantSpec(rules=RULES, rotation="svd"), "rotation for each block"),
        (QuantSpec(rules=RULES, smoothing=0.5), "cannot be merged"),
        (QuantSpec(rules=RULES, act_scale="static"), "cannot be merged"),
        (QuantSpec(rules=RULES, row_rotation=True), "rotated outputs"),
    ],
)
def test_transforms_of_a_layers_own_are_refused(quant: QuantSpec, reason: str) -> None:
    module = frozen(quant, outliers())
    with pytest.raises(EvaluationError, match=reason):
        MERGED.entry([module["q"], module["k"]])


def test_an_unquantized_layer_is_refused() -> None:
    with pytest.raises(EvaluationError, match="not quantized"):
        MERGED.exit(nn.Linear(WIDTH, 8, bias=False))
