"""Integer products: int8 tokens times int8 or int4 weights, scaled, with what follows them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from duqsweep.kernels.epilogue import NOTHING, Epilogue
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import overlaps, require_gpu
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.per_token_quant import round_tokens
from duqsweep.kernels.product_kernels import general_kernel, many_tokens_kernel, unpack_kernel
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.kernels.rotary import Rotary

MANY_TOKENS = 64  # above, a product is bound by arithmetic


@dataclass(frozen=True)
class Tile:
    """How a product is cut."""

    tokens: int
    outputs: int
    channels: int
    warps: int
    stages: int
    stacked: int = 1  # tiles of tokens a program, 1 or 3


def integer_product(
    codes: Tensor,
    token_scales: Tensor,
    weight: ProjectionWeights,
    dtype: torch.dtype,
    epilogue: Epilogue = NOTHING,
    tile: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Multiply rounded tokens by an integer weight.

    Args:
        codes: (tokens, in) int8, from `round_tokens`.
        token_scales: (tokens,) float32.
        weight: (out, in) codes and scales; its bias is added.
        dtype: Of the result.
        epilogue: What is done with the product.
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
        weight = replace(weight, values=unpack_on_gpu(weight.values))
    tile = tile or tile_for(tokens, weight)
    if out is None:
        wide = outputs // 2 if epilogue.kind == "gated" else outputs
        out = torch.empty(tokens, wide, dtype=dtype, device=codes.device)
    rotary = epilogue.rotary or Rotary(2, 0)
    cosines, sines = epilogue.table or (codes, codes)
    nothing: Any = codes
    tensors = (
        weight.scales_or_values,
        token_scales,
        nothing if weight.bias is None else weight.bias,
        nothing if epilogue.residual is None else epilogue.residual,
        cosines,
        sines,
        out,
    )
    pdl = overlaps(codes.device)
    constants = {
        "OUTPUTS": outputs,
        "BIASED": weight.bias is not None,
        "RESIDUAL": epilogue.residual is not None,
        "AFTER": epilogue.kind,
        "HEAD_DIM": rotary.head_dim,
        "ROTATED": rotary.heads,
        "TILE_M": tile.tokens,
        "TILE_N": tile.outputs,
        "PDL": pdl,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        "launch_pdl": pdl,
    }
    rows = triton.cdiv(tokens, tile.tokens * tile.stacked)
    columns = triton.cdiv(outputs, tile.outputs)
    if described:
        many_tokens_kernel[(rows, columns)](
            TensorDescriptor.from_tensor(codes, [tile.tokens, tile.channels]),
            TensorDescriptor.from_tensor(weight.values, [tile.outputs, tile.channels]),
            *tensors,
            tokens,
            WIDTH=weight.in_features,
            STACKED=tile.stacked,
            TILE_K=tile.channels,
            **constants,
        )
    else:
        groups = weight.groups
        group = weight.in_features // groups if groups > 1 else 0
        general_kernel[(rows, columns)](
            codes,
            weight.values,
            *tensors,
            tokens,
            STORED=weight.values.shape[1],
            GROUP=group,
            PACKED=weight.packed,
            TILE_K=min(tile.channels, group) if group else tile.channels,
            **constants,
        )
    note(name)
    return out


def tile_for(tokens: int, weight: ProjectionWeights) -> Tile:
    """The cut that was fastest for such a product on an H200."""
    if tokens <= 16:
        return Tile(16, 64, 128, warps=4, stages=4)
    if tokens <= MANY_TOKENS:
        return Tile(64, 64, 128, warps=4, stages=4)
    if not _describable(tokens, weight):
        return Tile(128, 128, 128, warps=8, stages=3)
    if weight.out_features >= 8192:
        return Tile(64, 256, 128, warps=8, stages=3, stacked=3)
    if weight.out_features <= 1152:
        return Tile(64, 64, 128, warps=4, stages=6 if weight.in_features > 2048 else 4)
    if weight.out_features > 4096:
        return Tile(64, 128, 128, warps=4, stages=3)
    return Tile(64, 128, 128, warps=4, stages=4)


def unpack_on_gpu(packed: Tensor) -> Tensor:
    """`unpack_int4` in one kernel."""
    outputs, half = packed.shape
    codes = torch.empty(outputs, 2 * half, dtype=torch.int8, device=packed.device)
    tile = min(triton.next_power_of_2(half), 1024)
    pdl = overlaps(packed.device)
    grid = (outputs, triton.cdiv(half, tile))
    unpack_kernel[grid](packed, codes, HALF=half, TILE=tile, PDL=pdl, launch_pdl=pdl)
    note("unpack_int4")
    return codes


def integer_linear(
    rows: Tensor,
    weight: ProjectionWeights,
    norm: Norm | None = None,
    epilogue: Epilogue = NOTHING,
) -> Tensor:
    """Round (tokens, in) rows and multiply them: (tokens, out) of the dtype of `rows`.

    Args:
        rows: On a GPU, bf16 or float32.
        weight: Codes and scales.
        norm: What stands before; see `round_tokens`.
        epilogue: What is done with the product.

    Raises:
        EvaluationError: The rows are not on a GPU, or of another dtype than bf16 and float32.
    """
    require_gpu(rows)
    codes, scales = round_tokens(rows, weight.permutation, weight.block, weight.act_bits, norm)
    return integer_product(codes, scales, weight, rows.dtype, epilogue)


def _describable(tokens: int, weight: ProjectionWeights) -> bool:
    """Whether TMA can load the tiles: a scale a row, rows of multiples of 16 bytes."""
    one_scale = weight.groups == 1
    return tokens > MANY_TOKENS and one_scale and weight.in_features % 32 == 0
