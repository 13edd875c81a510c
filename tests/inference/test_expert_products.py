"""Merged quantized layers against the layers that `freeze` builds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from duqsweep.inference.expert_products import (
    FakeQuantGatedLinear,
    FakeQuantLinear,
    FakeQuantNormLinear,
    SeparateAdaptiveNormLinears,
    adaptive_norm_linear,
    gated_linear,
    plain_linear,
)
from duqsweep.inference.weights import weights_of
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.spec import LayerRule, QuantSpec

WIDTH, TOKENS = 32, 200
RULES = (LayerRule(include="", weight_bits=4, act_bits=8),)


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
def test_plain_linear_is_the_frozen_layer(quant: QuantSpec) -> None:
    rows = outliers()
    module = frozen(quant, rows)
    product = plain_linear(module["q"])
    assert isinstance(product, FakeQuantLinear)
    torch.testing.assert_close(product(rows), module["q"](rows))


@pytest.mark.parametrize("quant", SETTINGS)
@torch.no_grad()
def test_gated_linear_is_gelu_then_gate_then_the_frozen_layer(quant: QuantSpec) -> None:
    gate, up = outliers(), torch.randn(TOKENS, WIDTH)
    rows = nn.functional.gelu(gate, approximate="tanh") * up
    module = frozen(quant, rows)
    product = gated_linear(module["q"])
    assert isinstance(product, FakeQuantGatedLinear)
    torch.testing.assert_close(product(torch.cat([gate, up], dim=-1)), module["q"](rows))


def check_norm_linear(module: nn.ModuleDict, kind: type) -> None:
    x, update = outliers(), torch.randn(TOKENS, WIDTH)
    gate, factor, shift = torch.randn(3, WIDTH)
    stream = x + update * gate
    normed = nn.functional.rms_norm(stream, (WIDTH,), eps=1e-6) * factor + shift
    opening = adaptive_norm_linear([module["q"], module["k"]])
    assert isinstance(opening, kind)
    total, product = opening(x, update, gate, factor, shift)
    expected = torch.cat([module["q"](normed), module["k"](normed)], dim=-1)
    torch.testing.assert_close(total, stream)
    torch.testing.assert_close(product, expected)


@torch.no_grad()
def test_norm_linear_is_residual_then_norm_then_the_frozen_layers() -> None:
    check_norm_linear(frozen(QuantSpec(rules=RULES), outliers()), FakeQuantNormLinear)


@pytest.mark.parametrize(
    "quant",
    [
        QuantSpec(rules=RULES, rotation="svd"),
        QuantSpec(rules=RULES, smoothing=0.5),
        QuantSpec(rules=RULES, act_scale="static"),
        QuantSpec(rules=RULES, row_rotation=True),
        QuantSpec(rules=RULES, kernel="loop"),
    ],
)
@torch.no_grad()
def test_layers_with_a_transform_of_their_own_are_called_one_by_one(quant: QuantSpec) -> None:
    module = frozen(quant, outliers())
    assert weights_of(module["q"]) is None
    assert plain_linear(module["q"]) is module["q"]
    check_norm_linear(module, SeparateAdaptiveNormLinears)


@torch.no_grad()
def test_a_quantized_layer_beside_an_unquantized_one_is_called_by_itself() -> None:
    module = frozen(QuantSpec(rules=RULES), outliers())
    module["k"] = nn.Linear(WIDTH, 16, bias=False)
    check_norm_linear(module, SeparateAdaptiveNormLinears)
