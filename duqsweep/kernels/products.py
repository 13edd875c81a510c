"""Integer products: int8 tokens times int8 or int4 weights, scaled, with what follows them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from duqsweep.kernels.codes import After, IntegerWeight
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import overlaps, require_gpu
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.rotary import Rotary, Table
from duqsweep.kernels.tokens import round_tokens

MANY_TOKENS = 64  # above, a product is bound by arithmetic


@dataclass(frozen=True)
class Tile:
    """How a product is cut."""

    tokens: int
    outputs: int
    channels: int
    warps: int
    stages: int


@triton.jit
def _gelu(x):
    """The tanh form, as x times a sigmoid."""
    return x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))


@triton.jit
def _product(
    codes,
    token_scales,
    weight,
    weight_scales,
    bias,
    residual,
    cosines,
    sines,
    out,
    tokens,
    OUTPUTS: tl.constexpr,
    STORED: tl.constexpr,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    BIASED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    AFTER: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTATED: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    DESCRIBED: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program a tile of the output; STORED: bytes of a weight's row; GROUP 0: a scale a row.

    DESCRIBED: codes and weight are tensor descriptors, whose tiles the GPU's copy engine brings.
    """
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    m = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    n = tl.program_id(1) * TILE_N + tl.arange(0, TILE_N)
    k = tl.arange(0, TILE_K)
    WIDTH: tl.constexpr = STORED * 2 if PACKED else STORED
    EVEN: tl.constexpr = STORED % TILE_K == 0
    # Rows past the end are read from inside and not stored.
    GROUPS: tl.constexpr = WIDTH // GROUP if GROUP else 1
    scale = weight_scales + (n % OUTPUTS) * GROUPS
    summed = tl.zeros((TILE_M, TILE_N), tl.int32)
    total = tl.zeros((TILE_M, TILE_N), tl.float32)
    if DESCRIBED:
        for start in range(0, STORED, TILE_K):
            x = codes.load([tl.program_id(0) * TILE_M, start])
            w = weight.load([tl.program_id(1) * TILE_N, start])
            summed = tl.dot(x, w.T, summed, out_dtype=tl.int32)
    else:
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
    total *= tl.load(token_scales + m % tokens)[:, None]
    if BIASED:
        total += tl.load(bias + n % OUTPUTS).to(tl.float32)[None, :]
    if AFTER == "gelu":
        total = _gelu(total)
    WIDE: tl.constexpr = OUTPUTS // 2 if AFTER == "gated" else OUTPUTS
    if AFTER == "gated" or AFTER == "rotary":
        first, second = tl.split(tl.reshape(total, (TILE_M, TILE_N // 2, 2)))
        n = tl.program_id(1) * (TILE_N // 2) + tl.arange(0, TILE_N // 2)
    if AFTER == "gated":
        total = _gelu(first) * second
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


@dataclass(frozen=True)
class Following:
    """What follows a product before its result is stored."""

    after: After = "nothing"
    residual: Tensor | None = None  # (tokens, out) of the result's dtype, added at the end
    rotary: Rotary | None = None  # where `after` is "rotary", with its table
    table: Table | None = None


NOTHING = Following()


def integer_product(
    codes: Tensor,
    token_scales: Tensor,
    weight: IntegerWeight,
    dtype: torch.dtype,
    following: Following = NOTHING,
    tile: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Multiply rounded tokens by an integer weight.

    Args:
        codes: (tokens, in) int8, from `round_tokens`.
        token_scales: (tokens,) float32.
        weight: (out, in) codes and scales; its bias is added.
        dtype: Of the result.
        following: What is done with the product.
        tile: How to cut the work; None: `tile_for`.
        out: Where to write; None: a new tensor.

    Returns:
        (tokens, out), or (tokens, out / 2) where the product is gated.
    """
    tokens, outputs = len(codes), weight.out_features
    name = "product_w4a8" if weight.packed else "product_w8a8"
    described = _describable(tokens, weight)
    if described and weight.packed:
        # As many tokens as here pay for a pass over the weight, and not for unpacking in the loop.
        weight = replace(weight, codes=unpack_on_gpu(weight.codes))
    tile = tile or tile_for(tokens, weight)
    wide = outputs // 2 if following.after == "gated" else outputs
    if out is None:
        out = torch.empty(tokens, wide, dtype=dtype, device=codes.device)
    groups = weight.scales.shape[1]
    group = weight.in_features // groups if groups > 1 else 0
    rotary = following.rotary or Rotary(2, 0)
    cosines, sines = following.table or (codes, codes)
    nothing: Any = codes
    pdl = overlaps(codes.device)
    left: Any = codes
    right: Any = weight.codes
    if described:
        left = TensorDescriptor.from_tensor(codes, [tile.tokens, tile.channels])
        right = TensorDescriptor.from_tensor(weight.codes, [tile.outputs, tile.channels])
    _product[(triton.cdiv(tokens, tile.tokens), triton.cdiv(outputs, tile.outputs))](
        left,
        token_scales,
        right,
        weight.scales,
        nothing if weight.bias is None else weight.bias,
        nothing if following.residual is None else following.residual,
        cosines,
        sines,
        out,
        tokens,
        OUTPUTS=outputs,
        STORED=weight.codes.shape[1],
        GROUP=group,
        PACKED=weight.packed,
        BIASED=weight.bias is not None,
        RESIDUAL=following.residual is not None,
        AFTER=following.after,
        HEAD_DIM=rotary.head_dim,
        ROTATED=rotary.heads,
        TILE_M=tile.tokens,
        TILE_N=tile.outputs,
        TILE_K=min(tile.channels, group) if group else tile.channels,
        DESCRIBED=described,
        PDL=pdl,
        num_warps=tile.warps,
        num_stages=tile.stages,
        launch_pdl=pdl,
    )
    note(name)
    return out


@triton.jit
def _unpack(packed, codes, HALF: tl.constexpr, TILE: tl.constexpr, PDL: tl.constexpr):
    """One program TILE bytes of a row."""
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * TILE + tl.arange(0, TILE)
    byte = tl.load(packed + row * HALF + k, mask=k < HALF, other=0)
    low = (byte << 4).to(tl.int8, bitcast=True) >> 4
    high = byte.to(tl.int8, bitcast=True) >> 4
    tl.store(codes + row * HALF * 2 + k, low, mask=k < HALF)
    tl.store(codes + row * HALF * 2 + HALF + k, high, mask=k < HALF)


def unpack_on_gpu(packed: Tensor) -> Tensor:
    """`unpack_int4` in one kernel."""
    outputs, half = packed.shape
    codes = torch.empty(outputs, 2 * half, dtype=torch.int8, device=packed.device)
    tile = min(triton.next_power_of_2(half), 1024)
    pdl = overlaps(packed.device)
    _unpack[(outputs, triton.cdiv(half, tile))](
        packed, codes, HALF=half, TILE=tile, PDL=pdl, launch_pdl=pdl
    )
    note("unpack_int4")
    return codes


def tile_for(tokens: int, weight: IntegerWeight) -> Tile:
    """The cut that was fastest for such a product on an H200."""
    if tokens <= 16:
        return Tile(16, 64, 128, warps=4, stages=4)
    if tokens <= MANY_TOKENS:
        return Tile(64, 64, 128, warps=4, stages=4)
    if weight.scales.shape[1] > 1:
        return Tile(128, 128, 128, warps=8, stages=3)
    if weight.out_features >= 8192:
        return Tile(128, 256, 128, warps=8, stages=4)
    if weight.out_features <= 1152:
        return Tile(64, 64, 128, warps=4, stages=6 if weight.in_features > 2048 else 4)
    if weight.out_features > 4096:
        return Tile(64, 128, 128, warps=4, stages=3)
    return Tile(64, 128, 128, warps=4, stages=4)


def _describable(tokens: int, weight: IntegerWeight) -> bool:
    """Whether the copy engine can bring the tiles: a scale a row, rows of multiples of 16 bytes."""
    one_scale = weight.scales.shape[1] == 1
    return tokens > MANY_TOKENS and one_scale and weight.in_features % 32 == 0


def integer_linear(
    rows: Tensor,
    weight: IntegerWeight,
    norm: Norm | None = None,
    following: Following = NOTHING,
) -> Tensor:
    """Round (tokens, in) rows and multiply them: (tokens, out) of the dtype of `rows`.

    Args:
        rows: On a GPU, bf16 or float32.
        weight: Codes and scales.
        norm: What stands before; see `round_tokens`.
        following: What is done with the product.

    Raises:
        EvaluationError: The rows are not on a GPU, or of another dtype than bf16 and float32.
    """
    require_gpu(rows)
    codes, scales = round_tokens(rows, weight.order, weight.block, weight.act_bits, norm)
    return integer_product(codes, scales, weight, rows.dtype, following)
