"""The products that open the expert's sublayers: q, k and v, and gate times up.

Their rows are integer codes, or where the layers are not quantized, the stream itself, which is
normed here.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert.common import (
    begin,
    cut,
    modulated,
    product,
    row_tile,
    scale_tile,
    weight_tile,
)
from duqsweep.kernels.triton_math import gelu


@triton.jit
def _entered(
    rows,
    act_scales,
    factor,
    shift,
    m,
    inside,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    FORMAT: tl.constexpr,
    FLAT: tl.constexpr,
):
    """What the product multiplies, and each token's scale."""
    if FORMAT == 16:
        normed = modulated(rows, factor, shift, m, inside, WIDTH)
        return (cut(normed, BATCHES),), tl.full((ROWS,), 1.0, tl.float32)
    else:
        scale = tl.load(act_scales + m, mask=inside, other=0.0, cache_modifier=".cg")
        return row_tile(rows, m, inside, WIDTH, BATCHES, FORMAT, FLAT), scale


@triton.jit
def qkv_kernel(
    rows,
    act_scales,
    factor,
    shift,
    weight,
    scales,
    cosines,
    sines,
    queries,
    keys,
    values,
    tokens,
    padded,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TILES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    GROUPS: tl.constexpr,
    FORMAT: tl.constexpr,
    FLAT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: all tokens by COLUMNS channels of a head's first half and those of its second."""
    HALF: tl.constexpr = HEAD_DIM // 2
    head = tl.program_id(0) // (HALF // COLUMNS)
    d = (tl.program_id(0) % (HALF // COLUMNS)) * COLUMNS + tl.arange(0, COLUMNS)
    n = head * HEAD_DIM + d
    first = weight_tile(weight, n, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    second = weight_tile(weight, n + HALF, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    first_scale = scale_tile(scales, n, WIDTH, BATCHES, GROUPS, FORMAT)
    second_scale = scale_tile(scales, n + HALF, WIDTH, BATCHES, GROUPS, FORMAT)
    factor_row, shift_row = 1.0, 0.0
    if FORMAT == 16:
        k = tl.arange(0, WIDTH)
        factor_row = tl.load(factor + k).to(tl.float32)
        shift_row = tl.load(shift + k).to(tl.float32)
    begin(PDL)
    for t in range(TILES):
        m = t * ROWS + tl.arange(0, ROWS)
        inside = m < tokens
        place = m[:, None] * HALF + d[None, :]
        cosine, sine = tl.load(cosines + place), tl.load(sines + place)
        parts, act_scale = _entered(
            rows,
            act_scales,
            factor_row,
            shift_row,
            m,
            inside,
            ROWS,
            WIDTH,
            BATCHES,
            FORMAT,
            FLAT,
        )
        a = product(parts, first, first_scale, act_scale, GROUPS, FORMAT)
        b = product(parts, second, second_scale, act_scale, GROUPS, FORMAT)
        if head < HEADS + KV_HEADS:
            a, b = a * cosine - b * sine, b * cosine + a * sine
        if head < HEADS:
            target = queries + m[:, None] * (HEADS * HEAD_DIM) + n[None, :]
        elif head < HEADS + KV_HEADS:
            target = keys + ((head - HEADS) * padded + m[:, None]) * HEAD_DIM + d[None, :]
        else:
            row = (head - HEADS - KV_HEADS) * padded + m[:, None]
            target = values + row * HEAD_DIM + d[None, :]
        tl.store(target, a.to(queries.dtype.element_ty))
        tl.store(target + HALF, b.to(queries.dtype.element_ty))


@triton.jit
def gate_up_kernel(
    rows,
    act_scales,
    factor,
    shift,
    weight,
    scales,
    hidden,
    tokens,
    HIDDEN: tl.constexpr,
    TILES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    GROUPS: tl.constexpr,
    FORMAT: tl.constexpr,
    FLAT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: all tokens by COLUMNS hidden channels."""
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    gate = weight_tile(weight, n, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    up = weight_tile(weight, n + HIDDEN, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    gate_scale = scale_tile(scales, n, WIDTH, BATCHES, GROUPS, FORMAT)
    up_scale = scale_tile(scales, n + HIDDEN, WIDTH, BATCHES, GROUPS, FORMAT)
    factor_row, shift_row = 1.0, 0.0
    if FORMAT == 16:
        k = tl.arange(0, WIDTH)
        factor_row = tl.load(factor + k).to(tl.float32)
        shift_row = tl.load(shift + k).to(tl.float32)
    begin(PDL)
    for t in range(TILES):
        m = t * ROWS + tl.arange(0, ROWS)
        inside = m < tokens
        parts, act_scale = _entered(
            rows,
            act_scales,
            factor_row,
            shift_row,
            m,
            inside,
            ROWS,
            WIDTH,
            BATCHES,
            FORMAT,
            FLAT,
        )
        a = product(parts, gate, gate_scale, act_scale, GROUPS, FORMAT)
        b = product(parts, up, up_scale, act_scale, GROUPS, FORMAT)
        mixed = (gelu(a) * b).to(hidden.dtype.element_ty)
        tl.store(hidden + m[:, None] * HIDDEN + n[None, :], mixed)
