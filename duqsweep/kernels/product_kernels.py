"""The kernels of integer products: one for any shape, and one for many tokens."""

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.triton_math import gelu


@triton.jit
def begin(PDL: tl.constexpr):
    """Let the next kernel start, and wait for the one ahead."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def finish(
    total,
    token_scales,
    bias,
    residual,
    cosines,
    sines,
    out,
    tokens,
    m,
    tile,
    OUTPUTS: tl.constexpr,
    BIASED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    AFTER: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTATED: tl.constexpr,
):
    """Scale, finish and store the tokens m and a tile of outputs; `total` has the rows' scales."""
    TILE_N: tl.constexpr = total.shape[1]
    n = tile * TILE_N + tl.arange(0, TILE_N)
    total *= tl.load(token_scales + m % tokens)[:, None]
    if BIASED:
        total += tl.load(bias + n % OUTPUTS).to(tl.float32)[None, :]
    if AFTER == "gelu":
        total = gelu(total)
    WIDE: tl.constexpr = OUTPUTS // 2 if AFTER == "gated" else OUTPUTS
    if AFTER == "gated" or AFTER == "rotary":
        first, second = tl.split(tl.reshape(total, (total.shape[0], TILE_N // 2, 2)))
        n = tile * (TILE_N // 2) + tl.arange(0, TILE_N // 2)
    if AFTER == "gated":
        total = gelu(first) * second
    if AFTER == "rotary":
        HALF: tl.constexpr = HEAD_DIM // 2
        head, d = n // HALF, n % HALF
        turned = (m < tokens)[:, None] & (head < ROTATED)[None, :]
        angle = m[:, None] * HALF + d[None, :]
        cosine = tl.load(cosines + angle, mask=turned, other=1.0)
        sine = tl.load(sines + angle, mask=turned, other=0.0)
        total = first * cosine - second * sine
        second = second * cosine + first * sine
        n = head * HEAD_DIM + d
    place = m.to(tl.int64)[:, None] * WIDE + n[None, :]
    stored = (m < tokens)[:, None] & (n < WIDE)[None, :]
    if RESIDUAL:
        total += tl.load(residual + place, mask=stored, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=stored)
    if AFTER == "rotary":
        tl.store(out + place + HEAD_DIM // 2, second.to(out.dtype.element_ty), mask=stored)


@triton.jit
def general_kernel(
    codes,
    weight,
    weight_scales,
    token_scales,
    bias,
    residual,
    cosines,
    sines,
    out,
    tokens,
    OUTPUTS: tl.constexpr,
    BIASED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    AFTER: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTATED: tl.constexpr,
    STORED: tl.constexpr,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program a tile of the output; STORED: bytes of a weight's row; GROUP 0: a scale a row."""
    begin(PDL)
    tile = tl.program_id(1)
    m = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    n = tile * TILE_N + tl.arange(0, TILE_N)
    k = tl.arange(0, TILE_K)
    WIDTH: tl.constexpr = STORED * 2 if PACKED else STORED
    EVEN: tl.constexpr = STORED % TILE_K == 0
    GROUPS: tl.constexpr = WIDTH // GROUP if GROUP else 1
    scale = weight_scales + (n % OUTPUTS) * GROUPS
    summed = tl.zeros((TILE_M, TILE_N), tl.int32)
    total = tl.zeros((TILE_M, TILE_N), tl.float32)
    # Rows past the end are read from inside and not stored.
    row = codes + (m % tokens).to(tl.int64)[:, None] * WIDTH + k[None, :]
    column = weight + (n % OUTPUTS).to(tl.int64)[None, :] * STORED + k[:, None]
    for start in range(0, STORED, TILE_K):
        inside = start + k < STORED
        if EVEN:
            w = tl.load(column + start)
            x = tl.load(row + start)
        else:
            w = tl.load(column + start, mask=inside[:, None], other=0)
            x = tl.load(row + start, mask=inside[None, :], other=0)
        if PACKED:
            if EVEN:
                upper = tl.load(row + start + STORED)
            else:
                upper = tl.load(row + start + STORED, mask=inside[None, :], other=0)
            high = w.to(tl.int8, bitcast=True) >> 4
            w = (w << 4).to(tl.int8, bitcast=True) >> 4
        if GROUP:
            part = tl.dot(x, w, out_dtype=tl.int32).to(tl.float32)
            total += part * tl.load(scale + start // GROUP)[None, :]
            if PACKED:
                part = tl.dot(upper, high, out_dtype=tl.int32).to(tl.float32)
                total += part * tl.load(scale + (start + STORED) // GROUP)[None, :]
        else:
            summed = tl.dot(x, w, summed, out_dtype=tl.int32)
            if PACKED:
                summed = tl.dot(upper, high, summed, out_dtype=tl.int32)
    if GROUP == 0:
        total = summed.to(tl.float32) * tl.load(scale)[None, :]
    finish(
        total, token_scales, bias, residual, cosines, sines, out, tokens, m, tile,
        OUTPUTS, BIASED, RESIDUAL, AFTER, HEAD_DIM, ROTATED,
    )  # fmt: skip


@triton.jit
def many_tokens_kernel(
    codes,
    weight,
    weight_scales,
    token_scales,
    bias,
    residual,
    cosines,
    sines,
    out,
    tokens,
    OUTPUTS: tl.constexpr,
    BIASED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    AFTER: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTATED: tl.constexpr,
    WIDTH: tl.constexpr,
    STACKED: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program STACKED (1 or 3) tiles of tokens and a tile of outputs.

    Codes and weight are tensor descriptors, whose tiles the GPU's copy engine brings.
    """
    begin(PDL)
    tile = tl.program_id(1)
    row = tl.program_id(0) * (STACKED * TILE_M)
    first = tl.zeros((TILE_M, TILE_N), tl.int32)
    if STACKED == 3:
        second = tl.zeros((TILE_M, TILE_N), tl.int32)
        third = tl.zeros((TILE_M, TILE_N), tl.int32)
    for start in range(0, WIDTH, TILE_K):  # past the last channel, the copy engine brings zeros
        w = weight.load([tile * TILE_N, start]).T
        first = tl.dot(codes.load([row, start]), w, first, out_dtype=tl.int32)
        if STACKED == 3:
            second = tl.dot(codes.load([row + TILE_M, start]), w, second, out_dtype=tl.int32)
            third = tl.dot(codes.load([row + 2 * TILE_M, start]), w, third, out_dtype=tl.int32)
    n = tile * TILE_N + tl.arange(0, TILE_N)
    scale = tl.load(weight_scales + n % OUTPUTS)[None, :]
    m = row + tl.arange(0, TILE_M)
    finish(
        first.to(tl.float32) * scale, token_scales, bias, residual, cosines, sines, out,
        tokens, m, tile, OUTPUTS, BIASED, RESIDUAL, AFTER, HEAD_DIM, ROTATED,
    )  # fmt: skip
    if STACKED == 3:
        finish(
            second.to(tl.float32) * scale, token_scales, bias, residual, cosines, sines, out,
            tokens, m + TILE_M, tile, OUTPUTS, BIASED, RESIDUAL, AFTER, HEAD_DIM, ROTATED,
        )  # fmt: skip
        finish(
            third.to(tl.float32) * scale, token_scales, bias, residual, cosines, sines, out,
            tokens, m + 2 * TILE_M, tile, OUTPUTS, BIASED, RESIDUAL, AFTER, HEAD_DIM, ROTATED,
        )  # fmt: skip


@triton.jit
def unpack_kernel(packed, codes, HALF: tl.constexpr, TILE: tl.constexpr, PDL: tl.constexpr):
    """One program TILE bytes of a row of two int4 codes a byte."""
    begin(PDL)
    row = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * TILE + tl.arange(0, TILE)
    byte = tl.load(packed + row * HALF + k, mask=k < HALF, other=0)
    low = (byte << 4).to(tl.int8, bitcast=True) >> 4
    high = byte.to(tl.int8, bitcast=True) >> 4
    tl.store(codes + row * HALF * 2 + k, low, mask=k < HALF)
    tl.store(codes + row * HALF * 2 + HALF + k, high, mask=k < HALF)
