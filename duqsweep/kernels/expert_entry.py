"""Opens a sublayer of the expert: adaptive norm, rotation, rounding, and the product behind them.

Two kernels: q, k and v with rotary positions, and gate times up with the rotation that down wants.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert_parts import (
    begin,
    codes,
    gelu,
    halves,
    modulated,
    product,
    rotated,
    scale_tile,
    token_scale,
    weight_tile,
)


@triton.jit
def _entered(
    stream,
    factor,
    shift,
    top,
    m,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BATCHES: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """What the product multiplies, as `spans`, and each token's scale."""
    values = modulated(stream, factor, shift, m, WIDTH)
    values = values.to(stream.dtype.element_ty)
    if FORMAT == 16:
        scale = tl.full((ROWS,), 1.0, tl.float32)
        return halves(values, ROWS, WIDTH, BATCHES, FORMAT), scale
    else:
        turned = rotated(values, ROWS, WIDTH, BLOCK)
        scale = token_scale(tl.max(tl.abs(turned), 1), top)
        return halves(codes(turned, scale), ROWS, WIDTH, BATCHES, FORMAT), scale


@triton.jit
def qkv_kernel(
    stream,
    factor,
    shift,
    weight,
    scales,
    cosines,
    sines,
    queries,
    keys,
    values,
    top,
    padded,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BATCHES: tl.constexpr,
    GROUPS: tl.constexpr,
    FORMAT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: ROWS tokens by COLUMNS channels of a head's first half and those of its second."""
    HALF: tl.constexpr = HEAD_DIM // 2
    TILES: tl.constexpr = HALF // COLUMNS
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(1) // TILES
    d = (tl.program_id(1) % TILES) * COLUMNS + tl.arange(0, COLUMNS)
    n = head * HEAD_DIM + d
    first = weight_tile(weight, n, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    second = weight_tile(weight, n + HALF, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    first_scale, second_scale = (1.0,), (1.0,)
    if FORMAT != 16:
        first_scale = scale_tile(scales, n, WIDTH, BATCHES, GROUPS, FORMAT)
        second_scale = scale_tile(scales, n + HALF, WIDTH, BATCHES, GROUPS, FORMAT)
    k = tl.arange(0, WIDTH)
    factor_row, shift_row = tl.load(factor + k).to(tl.float32), tl.load(shift + k).to(tl.float32)
    place = m[:, None] * HALF + d[None, :]
    cosine, sine = tl.load(cosines + place), tl.load(sines + place)
    begin(PDL)
    parts, act_scale = _entered(
        stream, factor_row, shift_row, top, m, ROWS, WIDTH, BLOCK, BATCHES, FORMAT
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
    stream,
    factor,
    shift,
    weight,
    scales,
    hidden,
    peaks,
    top,
    HIDDEN: tl.constexpr,
    AFTER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BATCHES: tl.constexpr,
    GROUPS: tl.constexpr,
    FORMAT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: ROWS tokens by COLUMNS hidden channels, rotated in blocks of AFTER (0: not).

    Where it rotates, `peaks`, (tokens, HIDDEN / COLUMNS), takes the largest magnitudes.
    """
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    gate = weight_tile(weight, n, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    up = weight_tile(weight, n + HIDDEN, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    gate_scale, up_scale = (1.0,), (1.0,)
    if FORMAT != 16:
        gate_scale = scale_tile(scales, n, WIDTH, BATCHES, GROUPS, FORMAT)
        up_scale = scale_tile(scales, n + HIDDEN, WIDTH, BATCHES, GROUPS, FORMAT)
    k = tl.arange(0, WIDTH)
    factor_row, shift_row = tl.load(factor + k).to(tl.float32), tl.load(shift + k).to(tl.float32)
    begin(PDL)
    parts, act_scale = _entered(
        stream, factor_row, shift_row, top, m, ROWS, WIDTH, BLOCK, BATCHES, FORMAT
    )
    a = product(parts, gate, gate_scale, act_scale, GROUPS, FORMAT)
    b = product(parts, up, up_scale, act_scale, GROUPS, FORMAT)
    mixed = (gelu(a) * b).to(hidden.dtype.element_ty)
    if AFTER > 0:
        turned = rotated(mixed, ROWS, COLUMNS, AFTER)
        mixed = turned.to(hidden.dtype.element_ty)
        peak = tl.max(tl.abs(mixed.to(tl.float32)), 1)
        tl.store(peaks + m * (HIDDEN // COLUMNS) + tl.program_id(1), peak)
    tl.store(hidden + m[:, None] * HIDDEN + n[None, :], mixed)
