"""Pieces that the expert's kernels share: norm, rotation, rounding, and products cut along K.

A product of ten tokens is too small for one warp's tile an output. So the input channels are cut
into BATCHES spans, each multiplied on its own (a batched product: the warps share the batches), and
the spans are summed in a fixed order.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

SMALLEST_SCALE = tl.constexpr(1e-8)  # of a token of zeros
# Added to a float32 below 2^22, it rounds half to even and leaves the integer in the lowest bits.
ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def begin(PDL: tl.constexpr):
    """Wait for the kernel before, once what does not depend on it is loaded; let the next start.

    Every kernel of the loop waits, so what an earlier one wrote is there too.
    """
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def gelu(x):
    """The tanh form, as x times a sigmoid."""
    return x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))


@triton.jit
def modulated(stream, factor, shift, m, WIDTH: tl.constexpr):
    """Adaptive RMS norm of the rows m: float32 (rows, WIDTH)."""
    k = tl.arange(0, WIDTH)
    x = tl.load(stream + m[:, None] * WIDTH + k[None, :]).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(x * x, 1) / WIDTH + 1e-6)
    return x * inverse[:, None] * factor[None, :] + shift[None, :]


@triton.jit
def rotated(values, ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """(ROWS, WIDTH) times the Hadamard matrix of each block of channels: float32."""
    if BLOCK == 1:
        return values.to(tl.float32)
    # The matrix holds ±1, so that the products are exact in the dtype of the values.
    parity = tl.arange(0, BLOCK)[:, None] & tl.arange(0, BLOCK)[None, :]
    parity ^= parity >> 4
    parity ^= parity >> 2
    parity ^= parity >> 1
    signs = (1 - 2 * (parity & 1)).to(values.dtype)
    blocks = tl.reshape(values, (ROWS * WIDTH // BLOCK, BLOCK))
    product = tl.dot(blocks, signs, input_precision="ieee")
    return tl.reshape(product, (ROWS, WIDTH)) * (1.0 / tl.sqrt(BLOCK * 1.0))


@triton.jit
def token_scale(peaks, top):
    """The scale of each token from its largest magnitude."""
    return tl.maximum(peaks / top, SMALLEST_SCALE)


@triton.jit
def codes(values, scale):
    """int8 codes of (rows, channels) under a scale for each row."""
    shifted = values * (1.0 / scale)[:, None] + ROUNDING
    return shifted.to(tl.int32, bitcast=True).to(tl.int8)  # as fast as addition; a cast is not


@triton.jit
def weight_tile(
    weight,
    n,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    FORMAT: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """Rows n of a weight as (BATCHES, rows, WIDTH / BATCHES).

    int4: in two halves of the batches; the codes come out times 16.
    """
    SPAN: tl.constexpr = WIDTH // BATCHES
    k = tl.arange(0, SPAN)[None, None, :]
    if FORMAT == 4:
        batch = tl.arange(0, BATCHES // 2)[:, None, None]
        raw = tl.load(weight + n[None, :, None] * (WIDTH // 2) + batch * SPAN + k)
        raw = raw.to(tl.int8, bitcast=True)
        if ASSEMBLY:  # four bytes an instruction; the compiler takes them one by one
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
def scale_tile(
    scales,
    n,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    GROUPS: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Scales of a `weight_tile`: (1, rows), or for groups, (BATCHES, rows) in its halves."""
    UNIT: tl.constexpr = 1.0 / 16.0 if FORMAT == 4 else 1.0
    if GROUPS == 1:
        return (tl.load(scales + n)[None, :] * UNIT,)
    elif FORMAT == 4:
        group = tl.arange(0, BATCHES // 2) * GROUPS // BATCHES
        place = scales + n[None, :] * GROUPS + group[:, None]
        return tl.load(place) * UNIT, tl.load(place + GROUPS // 2) * UNIT
    else:
        group = tl.arange(0, BATCHES) * GROUPS // BATCHES
        return (tl.load(scales + n[None, :] * GROUPS + group[:, None]),)


@triton.jit
def spans(rows, ROWS: tl.constexpr, WIDTH: tl.constexpr, BATCHES: tl.constexpr):
    """(ROWS, WIDTH) as (BATCHES, ROWS, WIDTH / BATCHES)."""
    return tl.permute(tl.reshape(rows, (ROWS, BATCHES, WIDTH // BATCHES)), (1, 0, 2))


@triton.jit
def halves(
    rows,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """`spans` as a `weight_tile` is given: the halves of the channels apart for int4."""
    if FORMAT == 4:
        pairs = tl.permute(tl.reshape(rows, (ROWS, 2, WIDTH // 2)), (0, 2, 1))
        low, high = tl.split(pairs)
        first = spans(low, ROWS, WIDTH // 2, BATCHES // 2)
        return first, spans(high, ROWS, WIDTH // 2, BATCHES // 2)
    else:
        return (spans(rows, ROWS, WIDTH, BATCHES),)


@triton.jit
def product(parts, tile, scale, act_scale, GROUPS: tl.constexpr, FORMAT: tl.constexpr):
    """Rows as `halves` times a `weight_tile`: float32 (rows, outputs)."""
    if FORMAT == 16:
        return tl.sum(tl.dot(parts[0], tl.permute(tile[0], (0, 2, 1)), input_precision="ieee"), 0)
    else:
        summed = tl.dot(parts[0], tl.permute(tile[0], (0, 2, 1)), out_dtype=tl.int32)
        if GROUPS == 1:
            if FORMAT == 4:
                summed = tl.dot(
                    parts[1], tl.permute(tile[1], (0, 2, 1)), summed, out_dtype=tl.int32
                )
            total = tl.sum(summed, 0).to(tl.float32) * scale[0]
        else:
            total = tl.sum(summed.to(tl.float32) * scale[0][:, None, :], 0)
            if FORMAT == 4:
                summed = tl.dot(parts[1], tl.permute(tile[1], (0, 2, 1)), out_dtype=tl.int32)
                total += tl.sum(summed.to(tl.float32) * scale[1][:, None, :], 0)
        return total * act_scale[:, None]
