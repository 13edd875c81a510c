"""What the expert's Triton kernels share: waiting for the previous kernel, and split-K products.

A product of ten tokens is too small to give every warp a tile of outputs. So the input channels are
split into BATCHES spans. Each span is multiplied separately, as one batch of a batched product, so
that the warps divide the batches; the spans are then summed in a fixed order.

Values that another kernel of the loop wrote are read from the L2 cache (.cg): kernels overlap, so
the L1 cache may hold older values.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.early_launch import wait_for_previous_kernel


@triton.jit
def wait_then_launch(PDL: tl.constexpr):
    """Wait for the previous kernel, then let the next one start (programmatic dependent launch).

    Kernels call it after loading everything that does not depend on the previous kernel. Since all
    kernels of the loop wait, the results of earlier ones are complete, too.
    """
    if PDL:
        wait_for_previous_kernel()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def adaptive_norm(stream, factor, shift, m, inside, WIDTH: tl.constexpr):
    """Adaptive RMS norm of the rows m, in the dtype of the residual stream: (rows, WIDTH)."""
    place = m[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    x = tl.load(stream + place, mask=inside[:, None], other=0.0, cache_modifier=".cg")
    x = x.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(x * x, 1) / WIDTH + 1e-6)
    normed = x * inverse[:, None] * factor[None, :] + shift[None, :]
    return normed.to(stream.dtype.element_ty)


@triton.jit
def weight_tile(
    weight,
    n,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    FORMAT: tl.constexpr,
    INLINE_ASM: tl.constexpr,
):
    """Rows n of a weight as (BATCHES, rows, WIDTH / BATCHES).

    FORMAT 4: two tensors, each with half of the batches; the values are multiplied by 16.
    """
    SPAN: tl.constexpr = WIDTH // BATCHES
    k = tl.arange(0, SPAN)[None, None, :]
    if FORMAT == 4:
        batch = tl.arange(0, BATCHES // 2)[:, None, None]
        raw = tl.load(weight + n[None, :, None] * (WIDTH // 2) + batch * SPAN + k)
        raw = raw.to(tl.int8, bitcast=True)
        if INLINE_ASM:  # four bytes per instruction; Triton would handle them one by one
            low = tl.inline_asm_elementwise(
                "{ .reg .b32 t; shl.b32 t, $1, 4; and.b32 $0, t, 0xF0F0F0F0; }",
                "=r,r",
                [raw],
                dtype=tl.int8,
                is_pure=True,
                pack=4,
            )
            high = tl.inline_asm_elementwise(
                "and.b32 $0, $1, 0xF0F0F0F0;", "=r,r", [raw], dtype=tl.int8, is_pure=True, pack=4
            )
        else:
            low = raw << 4
            high = raw & -16
        return low, high
    else:
        batch = tl.arange(0, BATCHES)[:, None, None]
        return (tl.load(weight + n[None, :, None] * WIDTH + batch * SPAN + k),)


@triton.jit
def row_tile(
    rows,
    m,
    inside,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    FORMAT: tl.constexpr,
    FLAT: tl.constexpr,
):
    """Rows m of the input, split like the `weight_tile`; zeros where not `inside`.

    FLAT: load whole rows, then split them; this needs less shared memory and more instructions.
    """
    PARTS: tl.constexpr = BATCHES // 2 if FORMAT == 4 else BATCHES
    SPAN: tl.constexpr = WIDTH // BATCHES
    if FLAT:
        place = rows + m[:, None] * WIDTH + tl.arange(0, PARTS * SPAN)[None, :]
        mask = inside[:, None]
    else:
        span = tl.arange(0, PARTS)[:, None, None] * SPAN + tl.arange(0, SPAN)[None, None, :]
        place = rows + m[None, :, None] * WIDTH + span
        mask = inside[None, :, None]
    first = tl.load(place, mask=mask, other=0, cache_modifier=".cg")
    if FORMAT == 4:
        second = tl.load(place + WIDTH // 2, mask=mask, other=0, cache_modifier=".cg")
        return split_spans(first, PARTS), split_spans(second, PARTS)
    else:
        return (split_spans(first, PARTS),)


@triton.jit
def split_spans(rows, PARTS: tl.constexpr):
    """(rows, channels) → (PARTS, rows, channels / PARTS); tensors of that form stay as they are."""
    if len(rows.shape) == 3:
        return rows
    else:
        shape: tl.constexpr = (rows.shape[0], PARTS, rows.shape[1] // PARTS)
        return tl.permute(tl.reshape(rows, shape), (1, 0, 2))


@triton.jit
def scale_tile(
    scales,
    n,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    GROUPS: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Scales of a `weight_tile`: (1, rows); with groups (BATCHES, rows), FORMAT 4 in halves."""
    UNIT: tl.constexpr = 1.0 / 16.0 if FORMAT == 4 else 1.0
    if FORMAT == 16:
        return (1.0,)
    elif GROUPS == 1:
        return (tl.load(scales + n)[None, :] * UNIT,)
    elif FORMAT == 4:
        group = tl.arange(0, BATCHES // 2) * GROUPS // BATCHES
        place = scales + n[None, :] * GROUPS + group[:, None]
        return tl.load(place) * UNIT, tl.load(place + GROUPS // 2) * UNIT
    else:
        group = tl.arange(0, BATCHES) * GROUPS // BATCHES
        return (tl.load(scales + n[None, :] * GROUPS + group[:, None]),)


@triton.jit
def _sums(rows, tile, dtype: tl.constexpr):
    """Products of the spans: (BATCHES, rows, outputs), or (rows, outputs) of a single span."""
    if rows.shape[0] == 1:
        flat = tl.reshape(tile, (tile.shape[1], tile.shape[2]))
        left = tl.reshape(rows, (rows.shape[1], rows.shape[2]))
        return tl.dot(left, tl.trans(flat), input_precision="ieee", out_dtype=dtype)
    else:
        transposed = tl.permute(tile, (0, 2, 1))
        return tl.dot(rows, transposed, input_precision="ieee", out_dtype=dtype)


@triton.jit
def _total(sums):
    """The sum over the spans: (rows, outputs)."""
    if len(sums.shape) == 2:
        return sums
    else:
        return tl.sum(sums, 0)


@triton.jit
def _scaled(sums, scale):
    """The sum over the spans, each with its own scales (BATCHES, outputs)."""
    if len(sums.shape) == 2:
        return sums.to(tl.float32) * scale
    else:
        return tl.sum(sums.to(tl.float32) * scale[:, None, :], 0)


@triton.jit
def product(parts, tile, scale, act_scale, GROUPS: tl.constexpr, FORMAT: tl.constexpr):
    """A `row_tile` times a `weight_tile`: float32 (rows, outputs)."""
    if FORMAT == 16:
        return _total(_sums(parts[0], tile[0], tl.float32))
    else:
        total = _sums(parts[0], tile[0], tl.int32)
        if GROUPS == 1:
            if FORMAT == 4:
                total += _sums(parts[1], tile[1], tl.int32)
            total = _total(total).to(tl.float32) * scale[0]
        else:
            total = _scaled(total, scale[0])
            if FORMAT == 4:
                total += _scaled(_sums(parts[1], tile[1], tl.int32), scale[1])
        return total * act_scale[:, None]
