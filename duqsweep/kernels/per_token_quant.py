"""Rounds tokens to int8: norm, reordering, block Hadamard and one scale a token, in one kernel."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import interpreted, overlaps
from duqsweep.kernels.norms import NORM_EPS, Norm
from duqsweep.kernels.projection_weights import largest_code
from duqsweep.kernels.triton_math import ROUNDING, SMALLEST_SCALE

NARROW = 2048  # channels; so narrow rows are faster in pairs, where there are many
TOKENS_TOGETHER = 2
FEW_TOKENS = 128
NARROWEST_TILE = 16  # rows and columns that a matrix product on tensor cores takes at least


@triton.jit
def _round_tokens(
    rows,
    order,
    signs,
    norm_weight,
    norm_bias,
    codes,
    scales,
    tokens,
    row_stride,
    eps,
    top,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    ORDERED: tl.constexpr,
    NORMED: tl.constexpr,
    CENTRED: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program TOKENS tokens, whose rows it keeps; BLOCK 1: no rotation."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)[:, None]
    channel = tl.arange(0, PADDED)[None, :]
    inside = (channel < WIDTH) & (token < tokens)
    source = channel
    if ORDERED:
        source = tl.load(order + channel, mask=channel < WIDTH, other=0)
    if BLOCK > 1:
        i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
        matrix = tl.load(signs + i * BLOCK + j)
    if NORMED:
        weight = tl.load(norm_weight + channel, mask=channel < WIDTH, other=0.0)
    if CENTRED:
        shift = tl.load(norm_bias + channel, mask=channel < WIDTH, other=0.0)
    if PDL:  # what does not depend on the kernel before is loaded by now
        tl.extra.cuda.gdc_wait()
    place = token.to(tl.int64) * row_stride + source
    loaded = tl.load(rows + place, mask=inside, other=0.0)
    values = loaded.to(tl.float32)
    if NORMED:
        if CENTRED:
            mean = tl.sum(values, 1, keep_dims=True) / WIDTH
            values = tl.where(inside, values - mean, 0.0)
        spread = tl.sum(values * values, 1, keep_dims=True) / WIDTH
        values = values * tl.rsqrt(spread + eps) * weight
        if CENTRED:
            values += shift
        values = values.to(loaded.dtype).to(tl.float32)  # as the unquantized norm gives it
    if BLOCK > 1:
        # The matrix holds ±1: with bf16 inputs the tensor cores' products and sums are exact.
        blocks = tl.reshape(values, (TOKENS * PADDED // BLOCK, BLOCK)).to(matrix.dtype)
        rotated = tl.dot(blocks, matrix, input_precision="ieee") * (1.0 / tl.sqrt(BLOCK * 1.0))
        values = tl.reshape(rotated, (TOKENS, PADDED))
    peak = tl.max(tl.where(inside, tl.abs(values), 0.0), 1, keep_dims=True)
    scale = tl.maximum(peak / top, SMALLEST_SCALE)
    rounded = (values / scale + ROUNDING) - ROUNDING
    tl.store(codes + token.to(tl.int64) * WIDTH + channel, rounded.to(tl.int8), mask=inside)
    tl.store(scales + token, scale, mask=token < tokens)


@cache
def signs(block: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The signs of the Walsh-Hadamard matrix of a block, (block, block)."""
    matrix = torch.ones(1, 1)
    while len(matrix) < block:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix.to(device, dtype)


def round_tokens(
    rows: Tensor,
    order: Tensor | None,
    block: int,
    bits: int,
    norm: Norm | None = None,
) -> tuple[Tensor, Tensor]:
    """Norm, reorder, rotate and round tokens.

    Args:
        rows: (tokens, in), bf16 or float32; the last axis lies without gaps.
        order: (in,) int32: where each reordered channel comes from; None: as they are.
        block: Channels that one Hadamard matrix mixes, a power of two up to 128; 1: none.
        bits: Of the codes, 2 to 8.
        norm: What stands before, its channels reordered like the codes. None: nothing.

    Returns:
        (tokens, in) int8 codes and (tokens,) float32 scales: largest |x| over largest code.
    """
    tokens, width = rows.shape
    codes = torch.empty(tokens, width, dtype=torch.int8, device=rows.device)
    scales = torch.empty(tokens, dtype=torch.float32, device=rows.device)
    padded = max(triton.next_power_of_2(width), NARROWEST_TILE * block)
    # The interpreter has no products in bf16.
    dtype = torch.float32 if interpreted() else rows.dtype
    together = TOKENS_TOGETHER if padded <= NARROW and tokens > FEW_TOKENS else 1
    nothing: Any = rows
    pdl = overlaps(rows.device)
    _round_tokens[(triton.cdiv(tokens, together),)](
        rows,
        nothing if order is None else order,
        nothing if block == 1 else signs(block, dtype, rows.device),
        nothing if norm is None else norm.weight,
        nothing if norm is None or norm.bias is None else norm.bias,
        codes,
        scales,
        tokens,
        rows.stride(0),
        NORM_EPS,
        float(largest_code(bits)),
        TOKENS=together,
        WIDTH=width,
        PADDED=padded,
        BLOCK=block,
        ORDERED=order is not None,
        NORMED=norm is not None,
        CENTRED=norm is not None and norm.bias is not None,
        PDL=pdl,
        num_warps=4 if padded <= 4 * NARROW else 8,
        launch_pdl=pdl,
    )
    note("round_tokens")
    return codes, scales
