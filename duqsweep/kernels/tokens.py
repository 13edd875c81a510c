"""Rounds tokens to int8: norm, reordering, block Hadamard and one scale a token, in one kernel."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from duqsweep.kernels.launches import note
from duqsweep.kernels.norms import NORM_EPS, Norm

SMALLEST_SCALE = tl.constexpr(1e-8)  # of a token of zeros
# Adding and subtracting it rounds a float32 below 2^22 to an integer, half to even.
ROUNDING = tl.constexpr(12582912.0)
NARROWEST_TILE = 16  # rows and columns that a matrix product on tensor cores takes at least


@triton.jit
def _round_tokens(
    rows,
    order,
    norm_weight,
    norm_bias,
    codes,
    scales,
    row_stride,
    eps,
    top,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ORDERED: tl.constexpr,
    ROTATED: tl.constexpr,
    NORMED: tl.constexpr,
    CENTRED: tl.constexpr,
    FACTOR: tl.constexpr,
):
    """One program a token; its channels are a tile of (blocks, channels of a block)."""
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCKS)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = channel < WIDTH
    source = channel
    if ORDERED:
        source = tl.load(order + channel, mask=inside, other=0)
    loaded = tl.load(rows + token * row_stride + source, mask=inside, other=0.0)
    values = loaded.to(tl.float32)
    if NORMED:
        if CENTRED:
            values = tl.where(inside, values - tl.sum(values) / WIDTH, 0.0)
        spread = tl.sum(values * values) / WIDTH
        weight = tl.load(norm_weight + source, mask=inside, other=0.0)
        values = values * tl.rsqrt(spread + eps) * weight
        if CENTRED:
            values += tl.load(norm_bias + source, mask=inside, other=0.0)
        values = values.to(loaded.dtype).to(tl.float32)  # as the unquantized norm gives it
    if ROTATED:
        # The matrix holds ±1: with bf16 inputs the tensor cores' products and sums are exact.
        i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
        parity = i & j
        parity ^= parity >> 4
        parity ^= parity >> 2
        parity ^= parity >> 1
        signs = (1 - 2 * (parity & 1)).to(FACTOR)
        values = tl.dot(values.to(FACTOR), signs, input_precision="ieee")
        values *= 1.0 / tl.sqrt(BLOCK * 1.0)
    scale = tl.maximum(tl.max(tl.abs(values)) / top, SMALLEST_SCALE)
    rounded = (values / scale + ROUNDING) - ROUNDING
    tl.store(codes + token * WIDTH + channel, rounded.to(tl.int8), mask=inside)
    tl.store(scales + token, scale)


def round_tokens(
    rows: Tensor, order: Tensor | None, block: int, bits: int, norm: Norm | None = None
) -> tuple[Tensor, Tensor]:
    """Norm, reorder, rotate and round tokens.

    Args:
        rows: (tokens, in), bf16 or float32; the last axis lies without gaps.
        order: (in,) int32: where each reordered channel comes from; None: as they are.
        block: Channels that one Hadamard matrix mixes, a power of two up to 128; 1: none.
        bits: Of the codes, 2 to 8.
        norm: What stands before; its weight is in the order of `rows`. None: nothing.

    Returns:
        (tokens, in) int8 codes and (tokens,) float32 scales: largest |x| over largest code.
    """
    tokens, width = rows.shape
    codes = torch.empty(tokens, width, dtype=torch.int8, device=rows.device)
    scales = torch.empty(tokens, dtype=torch.float32, device=rows.device)
    columns = block if block > 1 else 128
    blocks = max(triton.next_power_of_2(triton.cdiv(width, columns)), NARROWEST_TILE)
    nothing: Any = rows
    # The interpreter has no products in bf16.
    halves = rows.dtype == torch.bfloat16 and not triton.knobs.runtime.interpret
    factor = tl.bfloat16 if halves else tl.float32
    _round_tokens[(tokens,)](
        rows,
        nothing if order is None else order,
        nothing if norm is None else norm.weight,
        nothing if norm is None or norm.bias is None else norm.bias,
        codes,
        scales,
        rows.stride(0),
        NORM_EPS,
        float((1 << (bits - 1)) - 1),
        WIDTH=width,
        BLOCKS=blocks,
        BLOCK=columns,
        ORDERED=order is not None,
        ROTATED=block > 1,
        NORMED=norm is not None,
        CENTRED=norm is not None and norm.bias is not None,
        FACTOR=factor,
        num_warps=4 if width <= 4096 else 8,
    )
    note("round_tokens")
    return codes, scales
