"""Kernels of a program a token: norm, attention's last sum, and the way to integer codes."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert.common import begin, modulated
from duqsweep.kernels.triton_math import ROUNDING, SMALLEST_SCALE


@triton.jit
def _round(
    values,
    order,
    rows,
    scales,
    top,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ORDERED: tl.constexpr,
):
    """Reorder, rotate and round one token's (WIDTH,) values; store codes and scale."""
    token = tl.program_id(0)
    if ORDERED:
        values = tl.gather(values, order, 0)
    if BLOCK > 1:
        # The matrix holds ±1, so that the products are exact in the dtype of the values.
        parity = tl.arange(0, BLOCK)[:, None] & tl.arange(0, BLOCK)[None, :]
        parity ^= parity >> 4
        parity ^= parity >> 2
        parity ^= parity >> 1
        signs = (1 - 2 * (parity & 1)).to(values.dtype)
        blocks = tl.reshape(values, (WIDTH // BLOCK, BLOCK))
        # Its factor, 1 / sqrt(BLOCK), is left to the scale.
        turned = tl.dot(blocks, signs, input_precision="ieee")
        channel = tl.arange(0, WIDTH // BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    else:
        turned = values.to(tl.float32)
        channel = tl.arange(0, WIDTH)
    factor = 1.0 / tl.sqrt(BLOCK * 1.0)
    scale = tl.maximum(tl.max(tl.abs(turned)) * factor / top, SMALLEST_SCALE)
    shifted = turned * (factor / scale) + ROUNDING
    codes = shifted.to(tl.int32, bitcast=True).to(tl.int8)
    tl.store(rows + token * WIDTH + channel, codes)
    tl.store(scales + token, scale)


@triton.jit
def norm_kernel(
    stream,
    factor,
    shift,
    order,
    rows,
    scales,
    top,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ORDERED: tl.constexpr,
    PDL: tl.constexpr,
):
    """Adaptive norm, then codes."""
    c = tl.arange(0, WIDTH)
    factor_row, shift_row = tl.load(factor + c).to(tl.float32), tl.load(shift + c).to(tl.float32)
    source = c
    if ORDERED:
        source = tl.load(order + c)
    begin(PDL)
    m = tl.program_id(0) + tl.arange(0, 1)
    values = modulated(stream, factor_row, shift_row, m, m >= 0, WIDTH)
    values = tl.reshape(values, (WIDTH,))
    _round(values, source, rows, scales, top, WIDTH, BLOCK, ORDERED)


@triton.jit
def round_kernel(
    source_rows,
    order,
    rows,
    scales,
    top,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ORDERED: tl.constexpr,
    PDL: tl.constexpr,
):
    """Codes of rows."""
    c = tl.arange(0, WIDTH)
    source = c
    if ORDERED:
        source = tl.load(order + c)
    begin(PDL)
    values = tl.load(source_rows + tl.program_id(0) * WIDTH + c, cache_modifier=".cg")
    _round(values, source, rows, scales, top, WIDTH, BLOCK, ORDERED)


@triton.jit
def mix_kernel(
    partial,
    peaks,
    sums,
    order,
    rows,
    scales,
    top,
    chunks,
    pairs,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ORDERED: tl.constexpr,
    INTEGER: tl.constexpr,
    DTYPE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Attention's result from those of its chunks of keys; then codes, where INTEGER.

    pairs: (token, head of a group) that each chunk has room for.
    """
    WIDTH: tl.constexpr = HEADS * HEAD_DIM
    source = tl.arange(0, WIDTH)
    if ORDERED:
        source = tl.load(order + source)
    begin(PDL)
    h, d, s = tl.arange(0, HEADS), tl.arange(0, HEAD_DIM), tl.arange(0, CHUNKS)
    # Heads first: the warps then share those, and each thread adds up chunks by itself.
    pair = h // GROUP * CHUNKS * pairs + tl.program_id(0) * GROUP + h % GROUP
    place = pair[:, None] + s[None, :] * pairs
    written = (s < chunks)[None, :]
    parts = tl.load(
        partial + place[:, :, None] * HEAD_DIM + d[None, None, :],
        mask=written[:, :, None],
        other=0.0,
        cache_modifier=".cg",
    )
    peak = tl.load(peaks + place, mask=written, other=float("-inf"), cache_modifier=".cg")
    weight = tl.load(sums + place, mask=written, other=0.0, cache_modifier=".cg")
    share = tl.exp(peak - tl.max(peak, 1)[:, None])
    share = share / tl.sum(weight * share, 1)[:, None]
    total = tl.sum(parts * share[:, :, None], 1)
    values = tl.reshape(total.to(DTYPE), (WIDTH,))
    if INTEGER:
        _round(values, source, rows, scales, top, WIDTH, BLOCK, ORDERED)
    else:
        tl.store(rows + tl.program_id(0) * WIDTH + tl.arange(0, WIDTH), values)
