"""Kernels with one program per token: norm, combining attention's chunks, and quantization."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert.common import adaptive_norm, wait_then_launch
from duqsweep.kernels.triton_math import ROUNDING, SMALLEST_SCALE


@triton.jit
def _quantize(
    values,
    permutation,
    codes,
    scales,
    qmax,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PERMUTED: tl.constexpr,
):
    """Permute, rotate and quantize one token's (WIDTH,) values; store int8 codes and the scale."""
    token = tl.program_id(0)
    if PERMUTED:
        values = tl.gather(values, permutation, 0)
    if BLOCK > 1:
        # The matrix holds ±1, so the products are exact in the dtype of the values.
        parity = tl.arange(0, BLOCK)[:, None] & tl.arange(0, BLOCK)[None, :]
        parity ^= parity >> 4
        parity ^= parity >> 2
        parity ^= parity >> 1
        signs = (1 - 2 * (parity & 1)).to(values.dtype)
        blocks = tl.reshape(values, (WIDTH // BLOCK, BLOCK))
        # The factor 1 / sqrt(BLOCK) is applied to the scale instead.
        rotated = tl.dot(blocks, signs, input_precision="ieee")
        channel = tl.arange(0, WIDTH // BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    else:
        rotated = values.to(tl.float32)
        channel = tl.arange(0, WIDTH)
    factor = 1.0 / tl.sqrt(BLOCK * 1.0)
    scale = tl.maximum(tl.max(tl.abs(rotated)) * factor / qmax, SMALLEST_SCALE)
    shifted = rotated * (factor / scale) + ROUNDING
    rounded = shifted.to(tl.int32, bitcast=True).to(tl.int8)
    tl.store(codes + token * WIDTH + channel, rounded)
    tl.store(scales + token, scale)


@triton.jit
def norm_quant_kernel(
    stream,
    factor,
    shift,
    permutation,
    codes,
    scales,
    qmax,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PERMUTED: tl.constexpr,
    PDL: tl.constexpr,
):
    """Adaptive RMS norm, then quantization."""
    c = tl.arange(0, WIDTH)
    factor_row, shift_row = tl.load(factor + c).to(tl.float32), tl.load(shift + c).to(tl.float32)
    source = c
    if PERMUTED:
        source = tl.load(permutation + c)
    wait_then_launch(PDL)
    m = tl.program_id(0) + tl.arange(0, 1)
    values = adaptive_norm(stream, factor_row, shift_row, m, m >= 0, WIDTH)
    values = tl.reshape(values, (WIDTH,))
    _quantize(values, source, codes, scales, qmax, WIDTH, BLOCK, PERMUTED)


@triton.jit
def quant_kernel(
    rows,
    permutation,
    codes,
    scales,
    qmax,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PERMUTED: tl.constexpr,
    PDL: tl.constexpr,
):
    """Quantization."""
    c = tl.arange(0, WIDTH)
    source = c
    if PERMUTED:
        source = tl.load(permutation + c)
    wait_then_launch(PDL)
    values = tl.load(rows + tl.program_id(0) * WIDTH + c, cache_modifier=".cg")
    _quantize(values, source, codes, scales, qmax, WIDTH, BLOCK, PERMUTED)


@triton.jit
def combine_partials_kernel(
    partial,
    maxima,
    sums,
    permutation,
    out,
    scales,
    qmax,
    chunks,
    pairs,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHUNKS: tl.constexpr,
    READ: tl.constexpr,
    BLOCK: tl.constexpr,
    PERMUTED: tl.constexpr,
    INTEGER: tl.constexpr,
    DTYPE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Combine attention's results of the chunks of keys; then quantize, if INTEGER.

    pairs: (token, head of a group) pairs per chunk of the buffers.
    CHUNKS: of the buffers. READ: a power of two that is at least `chunks`.
    """
    WIDTH: tl.constexpr = HEADS * HEAD_DIM
    source = tl.arange(0, WIDTH)
    if PERMUTED:
        source = tl.load(permutation + source)
    wait_then_launch(PDL)
    h, d, s = tl.arange(0, HEADS), tl.arange(0, HEAD_DIM), tl.arange(0, READ)
    # Heads first: warps then divide the heads, and each thread adds up chunks by itself.
    pair = h // GROUP * CHUNKS * pairs + tl.program_id(0) * GROUP + h % GROUP
    place = pair[:, None] + s[None, :] * pairs
    in_use = (s < chunks)[None, :]
    parts = tl.load(
        partial + place[:, :, None] * HEAD_DIM + d[None, None, :],
        mask=in_use[:, :, None],
        other=0.0,
        cache_modifier=".cg",
    )
    maximum = tl.load(maxima + place, mask=in_use, other=float("-inf"), cache_modifier=".cg")
    weight = tl.load(sums + place, mask=in_use, other=0.0, cache_modifier=".cg")
    share = tl.exp(maximum - tl.max(maximum, 1)[:, None])
    share = share / tl.sum(weight * share, 1)[:, None]
    total = tl.sum(parts * share[:, :, None], 1)
    values = tl.reshape(total.to(DTYPE), (WIDTH,))
    if INTEGER:
        _quantize(values, source, out, scales, qmax, WIDTH, BLOCK, PERMUTED)
    else:
        tl.store(out + tl.program_id(0) * WIDTH + tl.arange(0, WIDTH), values)
