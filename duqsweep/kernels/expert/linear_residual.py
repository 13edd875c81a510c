"""The products o and down: gate times the product is added to the residual stream."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert.common import (
    product,
    row_tile,
    scale_tile,
    wait_then_launch,
    weight_tile,
)


@triton.jit
def linear_residual_kernel(
    rows,
    act_scales,
    weight,
    scales,
    gate,
    stream,
    tokens,
    OUTPUTS: tl.constexpr,
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
    """A program: all tokens, COLUMNS channels of the stream; adds gate * product in place."""
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    tile = weight_tile(weight, n, WIDTH, BATCHES, FORMAT, INLINE_ASM)
    scale = scale_tile(scales, n, WIDTH, BATCHES, GROUPS, FORMAT)
    gate_row = tl.load(gate + n).to(tl.float32)
    wait_then_launch(PDL)
    for t in range(TILES):
        m = t * ROWS + tl.arange(0, ROWS)
        inside = m < tokens
        place = m[:, None] * OUTPUTS + n[None, :]
        before = tl.load(stream + place, cache_modifier=".cg").to(tl.float32)
        act_scale = tl.full((ROWS,), 1.0, tl.float32)
        if FORMAT != 16:
            act_scale = tl.load(act_scales + m, mask=inside, other=0.0, cache_modifier=".cg")
        parts = row_tile(rows, m, inside, WIDTH, BATCHES, FORMAT, FLAT)
        update = product(parts, tile, scale, act_scale, GROUPS, FORMAT)
        after = before + update * gate_row[None, :]
        tl.store(stream + place, after.to(stream.dtype.element_ty))
