"""Per-token quantization against float64: norms, permutation, every block size, odd widths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duqsweep.kernels.launches import counted
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.per_token_quant import per_token_quant
from duqsweep.quant.rotation import hadamard, rotate_blocks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FULL = DEVICE == "cuda"

# (tokens, width, block); 4304 and 1152 are SigLIP's, 2048 and 16384 Gemma's, 1024 the expert's
SMALL = [(1, 128, 16), (3, 128, 128), (5, 288, 32), (2, 4304, 16), (7, 192, 64), (4, 96, 1)]
FULL_SIZE = [(534, 2048, 64), (533, 16384, 128), (512, 1152, 128), (512, 4304, 16), (51, 1024, 32)]
SHAPES = SMALL + FULL_SIZE * FULL


def expected(rows: Tensor, order: Tensor | None, block: int, norm: Norm | None) -> Tensor:
    """The values to quantize, in float64."""
    if norm is not None:
        wide = rows.double()
        if norm.bias is not None:
            wide = wide - wide.mean(-1, keepdim=True)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * norm.weight
        if norm.bias is not None:
            wide = wide + norm.bias
        rows = wide.to(rows.dtype)
    values = rows.double() if order is None else rows.double()[:, order.long()]
    return values if block == 1 else rotate_blocks(values, hadamard(block)[None].to(values))


@pytest.mark.parametrize("kind", ["nothing", "rms", "layer"])
@pytest.mark.parametrize(("tokens", "width", "block"), SHAPES)
def test_codes_and_scales_are_those_of_float64(
    tokens: int, width: int, block: int, kind: str
) -> None:
    rows = (torch.randn(tokens, width) * torch.rand(width) * 3).to(DEVICE)
    order = torch.randperm(width).int().to(DEVICE)
    bias = torch.randn(width, device=DEVICE) if kind == "layer" else None
    norm = None if kind == "nothing" else Norm(torch.rand(width, device=DEVICE) + 0.5, bias)
    reordered = norm and Norm(
        *(part if part is None else part[order] for part in vars(norm).values())
    )
    codes, scales = per_token_quant(rows, order, block, 8, reordered)
    values = expected(rows, order, block, norm)
    scale = values.abs().amax(-1) / 127
    assert ((scales.double() - scale).abs() <= 2e-6 * scale).all()
    exact = values / scale[:, None]
    # A value at the border of two codes may go either way.
    assert (codes.double() - exact).abs().max() <= 0.5 + 1e-3
    assert codes.abs().amax(-1).eq(127).all()


@pytest.mark.skipif(not FULL, reason="the interpreter cuts bf16 off instead of rounding it")
@pytest.mark.parametrize(("tokens", "width", "block"), FULL_SIZE)
def test_a_norm_in_bf16_is_rounded_as_the_unquantized_one(
    tokens: int, width: int, block: int
) -> None:
    rows = torch.randn(tokens, width, device=DEVICE).bfloat16()
    norm = Norm(torch.rand(width, device=DEVICE) + 0.5)
    codes, scales = per_token_quant(rows, None, block, 8, norm)
    values = expected(rows, None, block, norm)
    found = codes.double() * scales[:, None]
    # Half a code, and where float32 and float64 round the norm to two neighbours in bf16.
    assert (found - values).norm() <= 0.012 * values.norm()
    assert ((codes.double() - values / scales[:, None]).abs() <= 0.51).double().mean() > 0.99


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_use_the_bits_given(bits: int) -> None:
    rows = torch.randn(3, 64, device=DEVICE)
    codes, _ = per_token_quant(rows, None, 16, bits)
    assert codes.abs().max() == (1 << (bits - 1)) - 1


def test_a_token_of_zeros_is_zeros() -> None:
    codes, scales = per_token_quant(torch.zeros(2, 64, device=DEVICE), None, 16, 8)
    assert not codes.any()
    assert torch.equal(scales.cpu(), torch.full((2,), 1e-8))


def test_rows_may_lie_apart() -> None:
    wide = torch.randn(3, 128, device=DEVICE)
    codes, scales = per_token_quant(wide[:, :64], None, 16, 8)
    same, same_scales = per_token_quant(wide[:, :64].contiguous(), None, 16, 8)
    assert torch.equal(codes, same)
    assert torch.equal(scales, same_scales)


def test_launches_are_counted_by_kernel() -> None:
    with counted() as counts:
        for _ in range(2):
            per_token_quant(torch.randn(1, 32, device=DEVICE), None, 16, 8)
    per_token_quant(torch.randn(1, 32, device=DEVICE), None, 16, 8)
    assert counts == {"per_token_quant": 2}
