"""Layers of kernels int8 and w4a8 against the same packs under kernel `fake`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from duqsweep.errors import EvaluationError
from duqsweep.kernels.launches import counted
from duqsweep.quant.fold import build_pack
from duqsweep.quant.linear import LinearParts
from duqsweep.quant.linears import BUILDERS
from duqsweep.quant.linears.integer import IntegerLinear
from duqsweep.spec import QuantSpec

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FULL = DEVICE == "cuda"
TOKENS = (1, 10, 16, 50, 51, 64)


def parts(
    quant: QuantSpec, shape: tuple[int, int], dtype: torch.dtype, bits: tuple[int, int] = (4, 8)
) -> LinearParts:
    weight = torch.randn(shape) / shape[1] ** 0.5
    pack = build_pack(weight, bits[0], quant, torch.rand(shape[1]) * 10)
    return LinearParts(*bits, pack, None, torch.randn(shape[0]), dtype, torch.device(DEVICE))


def relative_errors(layer: nn.Module, other: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The error of each token."""
    found, wanted = layer(x).double(), other(x).double()
    return (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)


@pytest.mark.parametrize("kernel", ["int8", "w4a8"])
@pytest.mark.parametrize(
    ("quant", "shape", "tokens"),
    [
        *((QuantSpec(), (48, 128), tokens) for tokens in TOKENS),
        (QuantSpec(block_size=64, weight_group_size=32), (40, 192), 10),
        (QuantSpec(rotation="none", permutation="none"), (24, 96), 3),
        (QuantSpec(rotation="none", weight_group_size=64), (24, 128), 5),
        (QuantSpec(block_size=128, weight_scale="absmax", permutation="prototype"), (24, 256), 2),
    ],
)
def test_a_layer_gives_what_fake_gives_with_the_same_pack(
    quant: QuantSpec, shape: tuple[int, int], tokens: int, kernel: str
) -> None:
    made = parts(quant, shape, torch.float32)
    layer, fake = BUILDERS[kernel](made), BUILDERS["fake"](made)
    with counted() as counts:
        errors = relative_errors(layer, fake, torch.randn(tokens, shape[1], device=DEVICE))
    assert counts == {"per_token_quant": 1, f"product_{'w4a8' if kernel == 'w4a8' else 'w8a8'}": 1}
    # Where float32 puts a value on the border of two codes, a token may differ by one code.
    assert (errors > 1e-5).sum() <= max(1, tokens // 10)
    assert errors.max() <= 2e-2


def test_a_layer_takes_any_batch_of_tokens() -> None:
    layer = BUILDERS["int8"](parts(QuantSpec(), (16, 32), torch.float32))
    x = torch.randn(2, 3, 32, device=DEVICE)
    assert torch.equal(layer(x), torch.stack([layer(part) for part in x]))


@pytest.mark.skipif(not FULL, reason="full sizes take a GPU")
@pytest.mark.parametrize("kernel", ["int8", "w4a8"])
@pytest.mark.parametrize(
    ("shape", "quant"),
    [
        ((2560, 1024), QuantSpec(block_size=64)),
        ((1024, 4096), QuantSpec(block_size=128, weight_group_size=64)),
        ((2048, 16384), QuantSpec(block_size=32)),
        ((4304, 1152), QuantSpec(block_size=16)),
        ((1152, 4304), QuantSpec(block_size=16)),
    ],
)
def test_full_size_layers_in_bf16_stay_close_to_fake(
    shape: tuple[int, int], quant: QuantSpec, kernel: str
) -> None:
    made = parts(quant, shape, torch.bfloat16)
    layer, fake = BUILDERS[kernel](made), BUILDERS["fake"](made)
    wide = BUILDERS["fake"](replace(made, dtype=torch.float32))
    for tokens in (*TOKENS, 534):
        x = torch.randn(tokens, shape[1], device=DEVICE).bfloat16()
        found, expected = layer(x), wide(x.float())
        # The result is rounded to bf16; `fake` in bf16 rounds to it between its stages as well.
        assert (found - expected).norm() <= 4e-3 * expected.norm()
        assert relative_errors(layer, fake, x).max() <= 2e-2


def test_w4a8_packs_four_bits_and_keeps_wider_codes_whole() -> None:
    four, six = (parts(QuantSpec(), (32, 64), torch.float32, (bits, 8)) for bits in (4, 6))
    stored = {build: BUILDERS[build](four).codes.shape for build in ("int8", "w4a8")}
    assert stored == {"int8": (32, 64), "w4a8": (32, 32)}
    assert BUILDERS["w4a8"](six).codes.shape == (32, 64)


@pytest.mark.parametrize(
    ("quant", "bits", "why"),
    [
        (QuantSpec(row_rotation=True), (4, 8), "row_rotation"),
        (QuantSpec(smoothing=0.5), (4, 8), "smoothing"),
        (QuantSpec(rotation="svd"), (4, 8), "hadamard or none"),
        (QuantSpec(), (16, 8), "2 to 8 bits"),
        (QuantSpec(), (4, 16), "2 to 8 bits"),
    ],
)
def test_settings_without_an_integer_product_are_refused(
    quant: QuantSpec, bits: tuple[int, int], why: str
) -> None:
    with pytest.raises(EvaluationError, match=why):
        BUILDERS["int8"](parts(quant, (32, 64), torch.float32, bits))


def test_a_half_precision_input_is_refused() -> None:
    layer = BUILDERS["int8"](parts(QuantSpec(), (32, 64), torch.float32))
    with pytest.raises(EvaluationError, match="bfloat16 or float32"):
        layer(torch.zeros(2, 64, dtype=torch.float16, device=DEVICE))


def test_a_layer_says_what_it_is() -> None:
    layer = BUILDERS["w4a8"](parts(QuantSpec(), (32, 64), torch.float32))
    assert isinstance(layer, IntegerLinear)
    assert "64 -> 32, W4A8" in repr(layer)
