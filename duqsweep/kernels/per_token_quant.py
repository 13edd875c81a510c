"""Per-token quantization in one kernel, with norm, permutation and block Hadamard rotation.

Codes are int8 or e4m3.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from duqsweep.kernels import hopper_quant
from duqsweep.kernels.e4m3 import LARGEST_E4M3
from duqsweep.kernels.early_launch import wait_for_previous_kernel
from duqsweep.kernels.hadamard import signs
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import interpreted, overlaps
from duqsweep.kernels.norms import NORM_EPS, Norm
from duqsweep.kernels.projection_weights import largest_code
from duqsweep.kernels.triton_math import ROUNDING, SMALLEST_SCALE
from duqsweep.kernels.unfinished import Rows, Unfinished, finished

NARROW = 2048  # channels: many rows that are at most so wide are faster in pairs
TOKENS_PER_PROGRAM = 2
FEW_TOKENS = 128
MIN_TILE = 16  # the fewest rows and columns of a product on tensor cores


@triton.jit(do_not_specialize=["tokens"])  # multiples of 16 would be compiled again
def _per_token_quant(
    rows,
    permutation,
    signs,
    norm_weight,
    norm_bias,
    codes,
    scales,
    tokens,
    row_stride,
    eps,
    qmax,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PERMUTED: tl.constexpr,
    NORMED: tl.constexpr,
    LAYER_NORM: tl.constexpr,
    E4M3: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program: TOKENS tokens, whose whole rows it keeps in registers; BLOCK 1: no rotation."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)[:, None]
    channel = tl.arange(0, PADDED)[None, :]
    inside = (channel < WIDTH) & (token < tokens)
    source = channel
    if PERMUTED:
        source = tl.load(permutation + channel, mask=channel < WIDTH, other=0)
    if BLOCK > 1:
        i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
        matrix = tl.load(signs + i * BLOCK + j)
    if NORMED:
        weight = tl.load(norm_weight + channel, mask=channel < WIDTH, other=0.0)
    if LAYER_NORM:
        shift = tl.load(norm_bias + channel, mask=channel < WIDTH, other=0.0)
    if PDL:  # by now, everything that does not depend on the previous kernel is loaded
        wait_for_previous_kernel()
    place = token.to(tl.int64) * row_stride + source
    loaded = tl.load(rows + place, mask=inside, other=0.0)
    values = loaded.to(tl.float32)
    if NORMED:
        if LAYER_NORM:
            mean = tl.sum(values, 1, keep_dims=True) / WIDTH
            values = tl.where(inside, values - mean, 0.0)
        variance = tl.sum(values * values, 1, keep_dims=True) / WIDTH
        values = values * tl.rsqrt(variance + eps) * weight
        if LAYER_NORM:
            values += shift
        values = values.to(loaded.dtype).to(tl.float32)  # the unquantized norm rounds here, too
    if BLOCK > 1:
        # The matrix holds ±1: with bf16 inputs, products and sums on tensor cores are exact.
        blocks = tl.reshape(values, (TOKENS * PADDED // BLOCK, BLOCK)).to(matrix.dtype)
        rotated = tl.dot(blocks, matrix, input_precision="ieee") * (1.0 / tl.sqrt(BLOCK * 1.0))
        values = tl.reshape(rotated, (TOKENS, PADDED))
    amax = tl.max(tl.where(inside, tl.abs(values), 0.0), 1, keep_dims=True)
    scale = tl.maximum(amax / qmax, SMALLEST_SCALE)
    place = token.to(tl.int64) * WIDTH + channel
    if E4M3:
        # As `round_to_e4m3`, because the interpreter's own conversion is wrong. NaN stays NaN.
        scaled = tl.clamp(values / scale, -qmax, qmax, propagate_nan=tl.PropagateNan.ALL)
        power = (scaled.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
        step = tl.maximum(power, 0.015625) * 0.125
        rounded = ((scaled / step + ROUNDING) - ROUNDING) * step
        tl.store(codes + place, rounded.to(tl.float8e4nv), mask=inside)
    else:
        rounded = (values / scale + ROUNDING) - ROUNDING
        tl.store(codes + place, rounded.to(tl.int8), mask=inside)
    tl.store(scales + token, scale, mask=token < tokens)


def per_token_quant(
    rows: Rows,
    permutation: Tensor | None,
    block: int,
    bits: int,
    norm: Norm | None = None,
    e4m3: bool = False,
) -> tuple[Tensor, Tensor]:
    """Norm, permute, rotate and quantize tokens.

    Args:
        rows: (tokens, in), bf16 or float32; the last axis is contiguous.
        permutation: (in,) int32, the input channel of each permuted position; None: not permuted.
        block: Channels per Hadamard block, a power of two up to 128; 1: no rotation.
        bits: Bits of the codes, 2 to 8.
        norm: Applied first; its channels are permuted like the codes. None: no norm.
        e4m3: Make codes of e4m3, whatever `bits`; it needs a GPU of compute capability 8.9.

    Returns:
        (tokens, in) int8 or float8_e4m3fn codes, and (tokens,) float32 scales: largest |x| /
        largest code.
    """
    given = rows.out if isinstance(rows, Unfinished) else rows
    (tokens, width), device = given.shape, given.device
    stored = torch.float8_e4m3fn if e4m3 else torch.int8
    codes = torch.empty(tokens, width, dtype=stored, device=device)
    scales = torch.empty(tokens, dtype=torch.float32, device=device)
    largest = LARGEST_E4M3 if e4m3 else float(largest_code(bits))
    if hopper_quant.can_quantize(rows, permutation, block, norm):
        hopper_quant.quantize(rows, permutation, block, largest, norm, codes, scales)
        note("per_token_quant")
        return codes, scales
    rows = finished(rows)
    padded = max(triton.next_power_of_2(width), MIN_TILE * block)
    # The interpreter has no products in bf16.
    dtype = torch.float32 if interpreted() else rows.dtype
    per_program = TOKENS_PER_PROGRAM if padded <= NARROW and tokens > FEW_TOKENS else 1
    unused: Any = rows
    pdl = overlaps(rows.device)
    _per_token_quant[(triton.cdiv(tokens, per_program),)](
        rows,
        unused if permutation is None else permutation,
        unused if block == 1 else signs(block, dtype, rows.device),
        unused if norm is None else norm.weight,
        unused if norm is None or norm.bias is None else norm.bias,
        codes,
        scales,
        tokens,
        rows.stride(0),
        NORM_EPS,
        largest,
        TOKENS=per_program,
        WIDTH=width,
        PADDED=padded,
        BLOCK=block,
        PERMUTED=permutation is not None,
        NORMED=norm is not None,
        LAYER_NORM=norm is not None and norm.bias is not None,
        E4M3=e4m3,
        PDL=pdl,
        num_warps=4 if padded <= 4 * NARROW else 8,
        launch_pdl=pdl,
    )
    note("per_token_quant")
    return codes, scales
