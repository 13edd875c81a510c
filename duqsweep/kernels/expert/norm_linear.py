"""The products after the expert's norms: queries, keys and values; GELU of the gate times up.

Their input is int8, normed and quantized by `token_kernels`; or, for unquantized layers, the
residual stream, which is normed here.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert.common import (
    adaptive_norm,
    product,
    row_tile,
    scale_tile,
    split_spans,
    wait_then_launch,
    weight_tile,
)
from duqsweep.kernels.triton_math import gelu


@triton.jit
def _input_tile(
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
    """The product's input, split into spans, and each token's scale."""
    if FORMAT == 16:
        normed = adaptive_norm(rows, factor, shift, m, inside, WIDTH)
        return (split_spans(normed, BATCHES),), tl.full((ROWS,), 1.0, tl.float32)
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
    INLINE_ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: all tokens, COLUMNS channels of a head's first half and as many of its second."""
    HALF: tl.constexpr = HEAD_DIM // 2
    head = tl.program_id(0) // (HALF // COLUMNS)
    d = (tl.program_id(0) % (HALF // COLUMNS)) * COLUMNS + tl.arange(0, COLUMNS)
    n = head * HEAD_DIM + d
    first = weight_tile(weight, n, WIDTH, BATCHES, FORMAT, INLINE_ASM)
    second = weight_tile(weight, n + HALF, WIDTH, BATCHES, FORMAT, INLINE_ASM)
    first_scale = scale_tile(scales, n, WIDTH, BATCHES, GROUPS, FORMAT)
    second_scale = scale_tile(scales, n + HALF, WIDTH, BATCHES, GROUPS, FORMAT)
    factor_row, shift_row = 1.0, 0.0
    if FORMAT == 16:
        k = tl.arange(0, WIDTH)
        factor_row = tl.load(factor + k).to(tl.float32)
        shift_row = tl.load(shift + k).to(tl.float32)
    wait_then_launch(PDL)
    for t in range(TILES):
        m = t * ROWS + tl.arange(0, ROWS)
        inside = m < tokens
        place = m[:, None] * HALF + d[None, :]
        cosine, sine = tl.load(cosines + place), tl.load(sines + place)
        parts, act_scale = _input_tile(
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
    INLINE_ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: all tokens, COLUMNS hidden channels."""
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    gate = weight_tile(weight, n, WIDTH, BATCHES, FORMAT, INLINE_ASM)
    up = weight_tile(weight, n + HIDDEN, WIDTH, BATCHES, FORMAT, INLINE_ASM)
    gate_scale = scale_tile(scales, n, WIDTH, BATCHES, GROUPS, FORMAT)
    up_scale = scale_tile(scales, n + HIDDEN, WIDTH, BATCHES, GROUPS, FORMAT)
    factor_row, shift_row = 1.0, 0.0
    if FORMAT == 16:
        k = tl.arange(0, WIDTH)
        factor_row = tl.load(factor + k).to(tl.float32)
        shift_row = tl.load(shift + k).to(tl.float32)
    wait_then_launch(PDL)
    for t in range(TILES):
        m = t * ROWS + tl.arange(0, ROWS)
        inside = m < tokens
        parts, act_scale = _input_tile(
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
        gated = (gelu(a) * b).to(hidden.dtype.element_ty)
        tl.store(hidden + m[:, None] * HIDDEN + n[None, :], gated)
