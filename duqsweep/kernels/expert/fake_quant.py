"""Fake quantization of the expert's tokens, fused with residual and norm, or with the gated GELU.

One program per token keeps the row in registers. The rounded values have the dtype of the rows, for
a floating-point product. The operators can be part of a graph made by torch.compile. Rows are
contiguous, and their width is a power of two.
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
MIN_TILE = 16
CHANNELS_PER_WARP = 256


@triton.jit
def _fake_quantize(  # type: ignore[no-untyped-def]
    row,
    permutation,
    rotation,
    out,
    qmax,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROTATED: tl.constexpr,
):
    """Permute a row, multiply its blocks by the rotation, round with one scale, and store."""
    channel = tl.arange(0, BLOCKS)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    values = tl.reshape(tl.gather(row, permutation, 0), (BLOCKS, BLOCK))
    if ROTATED:
        values = tl.dot(values, rotation, input_precision="ieee")
    values = values.to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(values)) / qmax, SMALLEST_SCALE)
    rounded = ((values / scale + ROUNDING) - ROUNDING) * scale
    tl.store(out + channel, rounded.to(out.dtype.element_ty))


@triton.jit
def _load_rotation(rotation, BLOCK: tl.constexpr, ROTATED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The (BLOCK, BLOCK) rotation, if there is one."""
    if ROTATED:
        i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
        return tl.load(rotation + i * BLOCK + j)
    else:
        return 0.0


@triton.jit
def _norm_fake_quant(  # type: ignore[no-untyped-def]
    x,
    update,
    gate,
    factor,
    shift,
    permutation,
    rotation,
    total_out,  # not `stream`: torch's launchers have an argument with this name
    out,
    eps,
    qmax,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROTATED: tl.constexpr,
):
    """Gated residual, adaptive norm, fake quantization."""
    width: tl.constexpr = BLOCKS * BLOCK
    channel = tl.arange(0, width)
    at = tl.program_id(0) * width + channel
    # All loads first, so that they overlap: with few tokens, their latency dominates.
    source = tl.load(permutation + channel).to(tl.int32)
    loaded_rotation = _load_rotation(rotation, BLOCK, ROTATED)
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
    _fake_quantize(
        row, source, loaded_rotation, out + tl.program_id(0) * width, qmax, BLOCKS, BLOCK, ROTATED
    )


@triton.jit
def _act_fake_quant(  # type: ignore[no-untyped-def]
    rows,
    permutation,
    rotation,
    out,
    qmax,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROTATED: tl.constexpr,
    GATED: tl.constexpr,
):
    """Fake quantization of rows; GATED: of tanh-GELU of the first half times the second half."""
    width: tl.constexpr = BLOCKS * BLOCK
    channel = tl.arange(0, width)
    token = tl.program_id(0)
    source = tl.load(permutation + channel).to(tl.int32)
    loaded_rotation = _load_rotation(rotation, BLOCK, ROTATED)
    if GATED:
        loaded = tl.load(rows + token * 2 * width + channel)
        up = tl.load(rows + token * 2 * width + width + channel).to(tl.float32)
        gate = loaded.to(tl.float32)
        inner = GELU_FACTOR * (gate + GELU_CUBE * gate * gate * gate)
        row = (gate * tl.sigmoid(inner) * up).to(loaded.dtype)
    else:
        row = tl.load(rows + token * width + channel)
    _fake_quantize(row, source, loaded_rotation, out + token * width, qmax, BLOCKS, BLOCK, ROTATED)


@triton_op("duqsweep::norm_fake_quant", mutates_args={})
def norm_fake_quant(
    x: Tensor,
    update: Tensor,
    gate: Tensor,
    factor: Tensor,
    shift: Tensor,
    permutation: Tensor,
    rotation: Tensor,
    qmax: int,
) -> tuple[Tensor, Tensor]:
    """Gated residual, adaptive RMS norm, permutation, block rotation, per-token fake quantization.

    Args:
        x: (tokens, width).
        update: (tokens, width); the residual stream becomes x + update * gate.
        gate: (width,).
        factor: (width,), multiplied by the normed stream.
        shift: (width,), added to that.
        permutation: (width,) int16: the input channel of each permuted position.
        rotation: (block, block) in the dtype of x, shared by all blocks; (1, 1): no rotation.
        qmax: Largest code, to which a token's largest |x| is scaled.

    Returns:
        The residual stream and the rounded tokens, both (tokens, width).
    """
    stream, out = torch.empty_like(x), torch.empty_like(x)
    wrap_triton(_norm_fake_quant)[(len(x),)](
        x,
        update,
        gate,
        factor,
        shift,
        permutation,
        rotation,
        stream,
        out,
        NORM_EPS,
        float(qmax),
        **_shape(x.shape[1], rotation),
    )
    return stream, out


@triton_op("duqsweep::act_fake_quant", mutates_args={})
def act_fake_quant(
    rows: Tensor, permutation: Tensor, rotation: Tensor, qmax: int, gated: bool
) -> Tensor:
    """Permutation, block rotation and per-token fake quantization.

    Args:
        rows: (tokens, width), or (tokens, 2 * width) if gated.
        permutation: As in `norm_fake_quant`.
        rotation: As in `norm_fake_quant`.
        qmax: As in `norm_fake_quant`.
        gated: Quantize tanh-GELU of the first half of each row times its second half.

    Returns:
        (tokens, width).
    """
    out = rows.new_empty(len(rows), len(permutation))
    shape = _shape(len(permutation), rotation)
    wrap_triton(_act_fake_quant)[(len(rows),)](
        rows, permutation, rotation, out, float(qmax), GATED=gated, **shape
    )
    return out


def _shape(width: int, rotation: Tensor) -> dict[str, Any]:
    """Compile-time constants of a row of `width`, and its number of warps."""
    rotated = len(rotation) > 1
    block = len(rotation) if rotated else MIN_TILE
    warps = max(4, min(16, width // CHANNELS_PER_WARP))
    return {"BLOCKS": width // block, "BLOCK": block, "ROTATED": rotated, "num_warps": warps}
