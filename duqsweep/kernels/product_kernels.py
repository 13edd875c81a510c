"""Triton kernels of integer products: one for any shape, and one for many tokens that uses TMA."""

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.early_launch import launch_then_wait
from duqsweep.kernels.triton_math import gelu


@triton.jit
def epilogue_inputs(
    token_scales,
    bias,
    residual,
    tokens,
    m,
    n,
    OUTPUTS: tl.constexpr,
    BIASED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    EPILOGUE: tl.constexpr,
):
    """What the epilogue adds and multiplies: loaded before the product, which hides the latency."""
    shift, added = 0.0, 0.0
    if BIASED:
        shift = tl.load(bias + n % OUTPUTS)[None, :]
    if RESIDUAL and (EPILOGUE == "nothing" or EPILOGUE == "gelu"):
        place = m.to(tl.int64)[:, None] * OUTPUTS + n[None, :]
        inside = (m < tokens)[:, None] & (n < OUTPUTS)[None, :]
        added = tl.load(residual + place, mask=inside, other=0.0)
    return tl.load(token_scales + m % tokens)[:, None], shift, added


@triton.jit
def apply_epilogue(
    total,
    inputs,
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
    EPILOGUE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_HEADS: tl.constexpr,
):
    """Scale, apply the epilogue and store: tokens m, one tile of outputs.

    total: float32 (tokens, TILE_N), already multiplied by the scales of the weight.
    inputs: From `epilogue_inputs`.
    """
    TILE_N: tl.constexpr = total.shape[1]
    token_scale, shift, added = inputs
    n = tile * TILE_N + tl.arange(0, TILE_N)
    total *= token_scale
    if BIASED:
        total += shift.to(tl.float32)
    if EPILOGUE == "gelu":
        total = gelu(total)
    OUT_WIDTH: tl.constexpr = OUTPUTS // 2 if EPILOGUE == "gated" else OUTPUTS
    if EPILOGUE == "gated" or EPILOGUE == "rotary":
        first, second = tl.split(tl.reshape(total, (total.shape[0], TILE_N // 2, 2)))
        n = tile * (TILE_N // 2) + tl.arange(0, TILE_N // 2)
    if EPILOGUE == "gated":
        total = gelu(first) * second
    if EPILOGUE == "rotary":
        HALF: tl.constexpr = HEAD_DIM // 2
        head, d = n // HALF, n % HALF
        rotary = (m < tokens)[:, None] & (head < ROTARY_HEADS)[None, :]
        angle = m[:, None] * HALF + d[None, :]
        cosine = tl.load(cosines + angle, mask=rotary, other=1.0)
        sine = tl.load(sines + angle, mask=rotary, other=0.0)
        total = first * cosine - second * sine
        second = second * cosine + first * sine
        n = head * HEAD_DIM + d
    place = m.to(tl.int64)[:, None] * OUT_WIDTH + n[None, :]
    stored = (m < tokens)[:, None] & (n < OUT_WIDTH)[None, :]
    if RESIDUAL and (EPILOGUE == "gated" or EPILOGUE == "rotary"):
        total += tl.load(residual + place, mask=stored, other=0.0).to(tl.float32)
    elif RESIDUAL:
        total += added.to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=stored)
    if EPILOGUE == "rotary":
        tl.store(out + place + HEAD_DIM // 2, second.to(out.dtype.element_ty), mask=stored)


@triton.jit(do_not_specialize=["tokens"])  # multiples of 16 would be compiled again
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
    EPILOGUE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_HEADS: tl.constexpr,
    ROW_BYTES: tl.constexpr,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per tile of the output.

    ROW_BYTES: bytes of a row of the weight. GROUP: input channels per scale; 0: one scale per row.
    """
    launch_then_wait(PDL)
    tile = tl.program_id(1)
    m = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    n = tile * TILE_N + tl.arange(0, TILE_N)
    k = tl.arange(0, TILE_K)
    WIDTH: tl.constexpr = ROW_BYTES * 2 if PACKED else ROW_BYTES
    EVEN: tl.constexpr = ROW_BYTES % TILE_K == 0
    GROUPS: tl.constexpr = WIDTH // GROUP if GROUP else 1
    scale = weight_scales + (n % OUTPUTS) * GROUPS
    sums = tl.zeros((TILE_M, TILE_N), tl.int32)
    total = tl.zeros((TILE_M, TILE_N), tl.float32)
    inputs = epilogue_inputs(
        token_scales, bias, residual, tokens, m, n, OUTPUTS, BIASED, RESIDUAL, EPILOGUE
    )
    # Rows past the end read other, valid rows, and are not stored.
    row = codes + (m % tokens).to(tl.int64)[:, None] * WIDTH + k[None, :]
    column = weight + (n % OUTPUTS).to(tl.int64)[None, :] * ROW_BYTES + k[:, None]
    for start in range(0, ROW_BYTES, TILE_K):
        inside = start + k < ROW_BYTES
        if EVEN:
            w = tl.load(column + start)
            x = tl.load(row + start)
        else:
            w = tl.load(column + start, mask=inside[:, None], other=0)
            x = tl.load(row + start, mask=inside[None, :], other=0)
        if PACKED:
            if EVEN:
                upper = tl.load(row + start + ROW_BYTES)
            else:
                upper = tl.load(row + start + ROW_BYTES, mask=inside[None, :], other=0)
            high = w.to(tl.int8, bitcast=True) >> 4
            w = (w << 4).to(tl.int8, bitcast=True) >> 4
        if GROUP:
            part = tl.dot(x, w, out_dtype=tl.int32).to(tl.float32)
            total += part * tl.load(scale + start // GROUP)[None, :]
            if PACKED:
                part = tl.dot(upper, high, out_dtype=tl.int32).to(tl.float32)
                total += part * tl.load(scale + (start + ROW_BYTES) // GROUP)[None, :]
        else:
            sums = tl.dot(x, w, sums, out_dtype=tl.int32)
            if PACKED:
                sums = tl.dot(upper, high, sums, out_dtype=tl.int32)
    if GROUP == 0:
        total = sums.to(tl.float32) * tl.load(scale)[None, :]
    apply_epilogue(
        total, inputs, residual, cosines, sines, out, tokens, m, tile,
        OUTPUTS, BIASED, RESIDUAL, EPILOGUE, HEAD_DIM, ROTARY_HEADS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["tokens"])  # multiples of 16 would be compiled again
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
    EPILOGUE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    STACKED: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program: STACKED (1 or 3) tiles of tokens, one tile of outputs.

    codes, weight: tensor descriptors, whose tiles TMA loads into shared memory.
    """
    tile = tl.program_id(1)
    row = tl.program_id(0) * (STACKED * TILE_M)
    m = row + tl.arange(0, TILE_M)
    n = tile * TILE_N + tl.arange(0, TILE_N)
    scale = tl.load(weight_scales + n % OUTPUTS)[None, :]
    launch_then_wait(PDL)
    inputs = epilogue_inputs(
        token_scales, bias, residual, tokens, m, n, OUTPUTS, BIASED, RESIDUAL, EPILOGUE
    )
    first = tl.zeros((TILE_M, TILE_N), tl.int32)
    if STACKED == 3:
        second = tl.zeros((TILE_M, TILE_N), tl.int32)
        third = tl.zeros((TILE_M, TILE_N), tl.int32)
    for start in range(0, WIDTH, TILE_K):  # TMA loads zeros past the last channel
        w = weight.load([tile * TILE_N, start]).T
        first = tl.dot(codes.load([row, start]), w, first, out_dtype=tl.int32)
        if STACKED == 3:
            second = tl.dot(codes.load([row + TILE_M, start]), w, second, out_dtype=tl.int32)
            third = tl.dot(codes.load([row + 2 * TILE_M, start]), w, third, out_dtype=tl.int32)
    apply_epilogue(
        first.to(tl.float32) * scale, inputs, residual, cosines, sines, out, tokens, m, tile,
        OUTPUTS, BIASED, RESIDUAL, EPILOGUE, HEAD_DIM, ROTARY_HEADS,
    )  # fmt: skip
    if STACKED == 3:
        m += TILE_M
        inputs = epilogue_inputs(
            token_scales, bias, residual, tokens, m, n, OUTPUTS, BIASED, RESIDUAL, EPILOGUE
        )
        apply_epilogue(
            second.to(tl.float32) * scale, inputs, residual, cosines, sines, out, tokens, m, tile,
            OUTPUTS, BIASED, RESIDUAL, EPILOGUE, HEAD_DIM, ROTARY_HEADS,
        )  # fmt: skip
        m += TILE_M
        inputs = epilogue_inputs(
            token_scales, bias, residual, tokens, m, n, OUTPUTS, BIASED, RESIDUAL, EPILOGUE
        )
        apply_epilogue(
            third.to(tl.float32) * scale, inputs, residual, cosines, sines, out, tokens, m, tile,
            OUTPUTS, BIASED, RESIDUAL, EPILOGUE, HEAD_DIM, ROTARY_HEADS,
        )  # fmt: skip


@triton.jit
def unpack_kernel(packed, codes, HALF: tl.constexpr, TILE: tl.constexpr, PDL: tl.constexpr):
    """One program: TILE bytes of a row; each byte holds two int4 codes."""
    launch_then_wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * TILE + tl.arange(0, TILE)
    byte = tl.load(packed + row * HALF + k, mask=k < HALF, other=0)
    low = (byte << 4).to(tl.int8, bitcast=True) >> 4
    high = byte.to(tl.int8, bitcast=True) >> 4
    tl.store(codes + row * HALF * 2 + k, low, mask=k < HALF)
    tl.store(codes + row * HALF * 2 + HALF + k, high, mask=k < HALF)
