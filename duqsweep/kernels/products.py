"""Integer products: int8 tokens times int8 or int4 weights, scaled, with what follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.codes import After, IntegerWeight
from duqsweep.kernels.launches import note
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.tokens import round_tokens


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
    out,
    tokens,
    OUTPUTS: tl.constexpr,
    STORED: tl.constexpr,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    BIASED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    AFTER: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
):
    """One program a tile of the output; STORED: bytes of a weight's row; GROUP 0: a scale a row."""
    m = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    n = tl.program_id(1) * TILE_N + tl.arange(0, TILE_N)
    k = tl.arange(0, TILE_K)
    WIDTH: tl.constexpr = STORED * 2 if PACKED else STORED
    EVEN: tl.constexpr = STORED % TILE_K == 0
    # Rows past the end are read from inside and not stored.
    row = codes + (m % tokens).to(tl.int64)[:, None] * WIDTH + k[None, :]
    column = weight + (n % OUTPUTS).to(tl.int64)[None, :] * STORED + k[:, None]
    GROUPS: tl.constexpr = WIDTH // GROUP if GROUP else 1
    scale = weight_scales + (n % OUTPUTS) * GROUPS
    summed = tl.zeros((TILE_M, TILE_N), tl.int32)
    total = tl.zeros((TILE_M, TILE_N), tl.float32)
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
    if AFTER == "gated":
        gate, up = tl.split(tl.reshape(total, (TILE_M, TILE_N // 2, 2)))
        total = _gelu(gate) * up
        n = tl.program_id(1) * (TILE_N // 2) + tl.arange(0, TILE_N // 2)
    place = m.to(tl.int64)[:, None] * WIDE + n[None, :]
    stored = (m < tokens)[:, None] & (n < WIDE)[None, :]
    if RESIDUAL:
        total += tl.load(residual + place, mask=stored, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=stored)


def integer_product(
    codes: Tensor,
    token_scales: Tensor,
    weight: IntegerWeight,
    dtype: torch.dtype,
    after: After = "nothing",
    residual: Tensor | None = None,
    tile: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Multiply rounded tokens by an integer weight.

    Args:
        codes: (tokens, in) int8, from `round_tokens`.
        token_scales: (tokens,) float32.
        weight: (out, in) codes and scales; its bias is added.
        dtype: Of the result.
        after: See `After`.
        residual: (tokens, out) of the result's dtype, added at the end.
        tile: How to cut the work; None: `tile_for`.
        out: Where to write; None: a new tensor.

    Returns:
        (tokens, out), or (tokens, out / 2) where `after` is "gated".
    """
    tokens, outputs = len(codes), weight.out_features
    tile = tile or tile_for(tokens, weight)
    wide = outputs // 2 if after == "gated" else outputs
    if out is None:
        out = torch.empty(tokens, wide, dtype=dtype, device=codes.device)
    groups = weight.scales.shape[1]
    group = weight.in_features // groups if groups > 1 else 0
    nothing: Any = codes
    _product[(triton.cdiv(tokens, tile.tokens), triton.cdiv(outputs, tile.outputs))](
        codes,
        token_scales,
        weight.codes,
        weight.scales,
        nothing if weight.bias is None else weight.bias,
        nothing if residual is None else residual,
        out,
        tokens,
        OUTPUTS=outputs,
        STORED=weight.codes.shape[1],
        GROUP=group,
        PACKED=weight.packed,
        BIASED=weight.bias is not None,
        RESIDUAL=residual is not None,
        AFTER=after,
        TILE_M=tile.tokens,
        TILE_N=tile.outputs,
        TILE_K=min(tile.channels, group) if group else tile.channels,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    note("product_w4a8" if weight.packed else "product_w8a8")
    return out


def tile_for(tokens: int, weight: IntegerWeight) -> Tile:
    """The cut that was fastest for such a product."""
    if tokens <= 16:
        return Tile(16, 64, 128, warps=4, stages=4)
    if tokens <= 64:
        return Tile(64, 64, 128, warps=4, stages=4)
    return Tile(128, 128, 128, warps=8, stages=3)


def integer_linear(
    rows: Tensor,
    weight: IntegerWeight,
    norm: Norm | None = None,
    after: After = "nothing",
    residual: Tensor | None = None,
) -> Tensor:
    """Round (tokens, in) rows and multiply them: (tokens, out) of the dtype of `rows`.

    Raises:
        EvaluationError: The rows are not on a GPU, or of another dtype than bf16 and float32.
    """
    if not rows.is_cuda and not triton.knobs.runtime.interpret:
        raise EvaluationError(
            f"kernels int8 and w4a8 run on a CUDA GPU, and got a tensor on {rows.device}"
        )
    if rows.dtype not in (torch.bfloat16, torch.float32):
        raise EvaluationError(
            f"kernels int8 and w4a8 take bfloat16 or float32 inputs, got {rows.dtype}"
        )
    codes, scales = round_tokens(rows, weight.order, weight.block, weight.act_bits, norm)
    return integer_product(codes, scales, weight, rows.dtype, after, residual)
