"""Rows of an action expert as fake quantization leaves them: one kernel from residual to rounding.

A program takes one token and keeps its row in registers. The rounded values are numbers of the
rows' own dtype, for a product in floating point. The operators take their place in a graph that
torch.compile makes; rows lie without gaps and are a power of two wide.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from duqsweep.kernels.norms import NORM_EPS
from duqsweep.kernels.triton_math import ROUNDING, SMALLEST_SCALE

# tanh-GELU is x·sigmoid(2·sqrt(2/π)·(x + 0.044715·x³)).
GELU_FACTOR = tl.constexpr(1.5957691216057308)
GELU_CUBE = tl.constexpr(0.044715)
NARROWEST_TILE = 16
CHANNELS_OF_WARP = 256


@triton.jit
def _round(  # type: ignore[no-untyped-def]
    row,
    order,
    matrix,
    out,
    top,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROTATED: tl.constexpr,
):
    """Permute a row, multiply its blocks by the matrix, round with one scale and store."""
    channel = tl.arange(0, BLOCKS)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    values = tl.reshape(tl.gather(row, order, 0), (BLOCKS, BLOCK))
    if ROTATED:
        values = tl.dot(values, matrix, input_precision="ieee")
    values = values.to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(values)) / top, SMALLEST_SCALE)
    rounded = ((values / scale + ROUNDING) - ROUNDING) * scale
    tl.store(out + channel, rounded.to(out.dtype.element_ty))


@triton.jit
def _load_matrix(matrix, BLOCK: tl.constexpr, ROTATED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The rotation; nothing where there is none."""
    if ROTATED:
        i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
        return tl.load(matrix + i * BLOCK + j)
    else:
        return 0.0


@triton.jit
def _enter(  # type: ignore[no-untyped-def]
    x,
    update,
    gate,
    factor,
    shift,
    order,
    matrix,
    total_out,  # not `stream`: torch's launchers have an argument of that name
    out,
    eps,
    top,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROTATED: tl.constexpr,
):
    """Gated residual, adaptive norm, rounding."""
    width: tl.constexpr = BLOCKS * BLOCK
    channel = tl.arange(0, width)
    at = tl.program_id(0) * width + channel
    # All loads first: on so few tokens the time is what they take one after the other.
    source = tl.load(order + channel).to(tl.int32)
    rotation = _load_matrix(matrix, BLOCK, ROTATED)
    gates = tl.load(gate + channel).to(tl.float32)
    factors = tl.load(factor + channel).to(tl.float32)
    shifts = tl.load(shift + channel).to(tl.float32)
    loaded = tl.load(x + at)
    total = loaded.to(tl.float32) + tl.load(update + at).to(tl.float32) * gates
    total = total.to(loaded.dtype)
    tl.store(total_out + at, total)
    total = total.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(total * total) / width + eps)
    row = (total * inverse * factors + shifts).to(loaded.dtype)
    _round(row, source, rotation, out + tl.program_id(0) * width, top, BLOCKS, BLOCK, ROTATED)


@triton.jit
def _leave(  # type: ignore[no-untyped-def]
    rows,
    order,
    matrix,
    out,
    top,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROTATED: tl.constexpr,
    GATED: tl.constexpr,
):
    """Rounding of rows, or of the tanh-GELU of their first halves times their second."""
    width: tl.constexpr = BLOCKS * BLOCK
    channel = tl.arange(0, width)
    token = tl.program_id(0)
    source = tl.load(order + channel).to(tl.int32)
    rotation = _load_matrix(matrix, BLOCK, ROTATED)
    if GATED:
        loaded = tl.load(rows + token * 2 * width + channel)
        up = tl.load(rows + token * 2 * width + width + channel).to(tl.float32)
        gate = loaded.to(tl.float32)
        inner = GELU_FACTOR * (gate + GELU_CUBE * gate * gate * gate)
        row = (gate * tl.sigmoid(inner) * up).to(loaded.dtype)
    else:
        row = tl.load(rows + token * width + channel)
    _round(row, source, rotation, out + token * width, top, BLOCKS, BLOCK, ROTATED)


@triton_op("duqsweep::enter", mutates_args={})
def enter(
    x: Tensor,
    update: Tensor,
    gate: Tensor,
    factor: Tensor,
    shift: Tensor,
    order: Tensor,
    matrix: Tensor,
    top: int,
) -> tuple[Tensor, Tensor]:
    """Gated residual, adaptive RMS norm, permutation, block rotation and rounding of tokens.

    Args:
        x: (tokens, width).
        update: Like x; the stream is x + update * gate.
        gate: (width,).
        factor: (width,) of the normed stream.
        shift: (width,) added to it.
        order: (width,) int16: where each permuted channel comes from.
        matrix: (block, block) in the dtype of x, shared by all blocks; (1, 1): no rotation.
        top: Largest code; a token's largest |x| becomes it.

    Returns:
        The stream and the rounded tokens, both like x.
    """
    stream, out = torch.empty_like(x), torch.empty_like(x)
    wrap_triton(_enter)[(len(x),)](
        x,
        update,
        gate,
        factor,
        shift,
        order,
        matrix,
        stream,
        out,
        NORM_EPS,
        float(top),
        **_shape(x.shape[1], matrix),
    )
    return stream, out


@triton_op("duqsweep::leave", mutates_args={})
def leave(rows: Tensor, order: Tensor, matrix: Tensor, top: int, gated: bool) -> Tensor:
    """Permutation, block rotation and rounding of tokens.

    Args:
        rows: (tokens, width); gated: (tokens, 2 * width), and what is rounded is the tanh-GELU of
            the first half times the second.
        order: As in `enter`.
        matrix: As in `enter`.
        top: As in `enter`.
        gated: Whether rows are gate and up.

    Returns:
        (tokens, width).
    """
    out = rows.new_empty(len(rows), len(order))
    shape = _shape(len(order), matrix)
    wrap_triton(_leave)[(len(rows),)](rows, order, matrix, out, float(top), GATED=gated, **shape)
    return out


def _shape(width: int, matrix: Tensor) -> dict[str, Any]:
    """A row of `width` as a tile of blocks, and how many warps work on it."""
    rotated = len(matrix) > 1
    block = len(matrix) if rotated else NARROWEST_TILE
    warps = max(4, min(16, width // CHANNELS_OF_WARP))
    return {"BLOCKS": width // block, "BLOCK": block, "ROTATED": rotated, "num_warps": warps}
