"""Closes a sublayer of the expert: rotation, rounding, product, and the gated residual."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert_parts import (
    begin,
    codes,
    halves,
    product,
    rotated,
    scale_tile,
    token_scale,
    weight_tile,
)


@triton.jit
def exit_kernel(
    rows,
    peaks,
    weight,
    scales,
    gate,
    stream,
    moved,
    inverse,
    top,
    OUTPUTS: tl.constexpr,
    TILES: tl.constexpr,
    ORDERED: tl.constexpr,
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
    """A program: ROWS tokens by COLUMNS channels of the stream, to which gate * product is added.

    TILES: columns of `peaks`, (tokens, TILES), where the rows are rotated already; else 0.
    ORDERED: `moved` takes the stream in the order that its next reader wants.
    """
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    tile = weight_tile(weight, n, WIDTH, BATCHES, FORMAT, ASSEMBLY)
    scale = (1.0,)
    if FORMAT != 16:
        scale = scale_tile(scales, n, WIDTH, BATCHES, GROUPS, FORMAT)
    gate_row = tl.load(gate + n).to(tl.float32)
    if ORDERED:
        channel = tl.load(inverse + n)
    begin(PDL)
    place = m[:, None] * OUTPUTS + n[None, :]
    before = tl.load(stream + place).to(tl.float32)
    values = tl.load(rows + m[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :])
    act_scale = tl.full((ROWS,), 1.0, tl.float32)
    if FORMAT == 16:
        parts = halves(values, ROWS, WIDTH, BATCHES, FORMAT)
    else:
        if TILES > 0:
            found = tl.load(peaks + m[:, None] * TILES + tl.arange(0, TILES)[None, :])
            turned = values.to(tl.float32)
            act_scale = token_scale(tl.max(found, 1), top)
        else:
            turned = rotated(values, ROWS, WIDTH, BLOCK)
            act_scale = token_scale(tl.max(tl.abs(turned), 1), top)
        parts = halves(codes(turned, act_scale), ROWS, WIDTH, BATCHES, FORMAT)
    update = product(parts, tile, scale, act_scale, GROUPS, FORMAT)
    after = (before + update * gate_row[None, :]).to(stream.dtype.element_ty)
    tl.store(stream + place, after)
    if ORDERED:
        tl.store(moved + m[:, None] * OUTPUTS + channel[None, :], after)
