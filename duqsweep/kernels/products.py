"""Integer products: int8 tokens times int8 or int4 weights, scales and epilogue in one kernel."""

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
from duqsweep.kernels.per_token_quant import per_token_quant
from duqsweep.kernels.product_kernels import general_kernel, many_tokens_kernel, unpack_kernel
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.kernels.rotary import Rotary
from duqsweep.kernels.unfinished import Rows, Unfinished

MANY_TOKENS = 64  # with more, a product is compute-bound


@dataclass(frozen=True)
class GemmConfig:
    """Tile sizes and launch settings of a product."""

    tokens: int  # per tile
    outputs: int  # per tile
    channels: int  # input channels per step
    warps: int  # per program
    stages: int  # of the software pipeline
    stacked: int = 1  # tiles of tokens per program: 1 or 3


def integer_product(
    codes: Tensor,
    token_scales: Tensor,
    weight: ProjectionWeights,
    dtype: torch.dtype,
    epilogue: Epilogue = NOTHING,
    config: GemmConfig | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Multiply quantized tokens by an integer weight.

    Args:
        codes: (tokens, in) int8, from `per_token_quant`.
        token_scales: (tokens,) float32.
        weight: (out, in) codes and scales; its bias is added.
        dtype: Dtype of the result.
        epilogue: Applied to the product before it is stored.
        config: How to divide the work; None: `config_for`.
        out: Where to store the result; None: a new tensor.

    Returns:
        (tokens, out), or (tokens, out / 2) for epilogue "gated".
    """
    tokens, outputs = len(codes), weight.out_features
    name = "product_w4a8" if weight.packed else "product_w8a8"
    by_tma = _tma_can_load(tokens, weight)
    if by_tma and weight.packed:
        # With so many tokens, unpacking the weight once beforehand is faster than in the loop.
        weight = replace(weight, values=unpack_on_gpu(weight.values))
    config = config or config_for(tokens, weight)
    if out is None:
        wide = outputs // 2 if epilogue.kind == "gated" else outputs
        out = torch.empty(tokens, wide, dtype=dtype, device=codes.device)
    rotary = epilogue.rotary or Rotary(2, 0)
    cosines, sines = epilogue.table or (codes, codes)
    unused: Any = codes
    tensors = (
        weight.scales_or_values,
        token_scales,
        unused if weight.bias is None else weight.bias,
        unused if epilogue.residual is None else epilogue.residual,
        cosines,
        sines,
        out,
    )
    pdl = overlaps(codes.device)
    constants = {
        "OUTPUTS": outputs,
        "BIASED": weight.bias is not None,
        "RESIDUAL": epilogue.residual is not None,
        "EPILOGUE": epilogue.kind,
        "HEAD_DIM": rotary.head_dim,
        "ROTARY_HEADS": rotary.heads,
        "TILE_M": config.tokens,
        "TILE_N": config.outputs,
        "PDL": pdl,
        "num_warps": config.warps,
        "num_stages": config.stages,
        "launch_pdl": pdl,
    }
    rows = triton.cdiv(tokens, config.tokens * config.stacked)
    columns = triton.cdiv(outputs, config.outputs)
    if by_tma:
        many_tokens_kernel[(rows, columns)](
            TensorDescriptor.from_tensor(codes, [config.tokens, config.channels]),
            TensorDescriptor.from_tensor(weight.values, [config.outputs, config.channels]),
            *tensors,
            tokens,
            WIDTH=weight.in_features,
            STACKED=config.stacked,
            TILE_K=config.channels,
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
            ROW_BYTES=weight.values.shape[1],
            GROUP=group,
            PACKED=weight.packed,
            TILE_K=min(config.channels, group) if group else config.channels,
            **constants,
        )
    note(name)
    return out


def config_for(tokens: int, weight: ProjectionWeights) -> GemmConfig:
    """The configuration that was fastest for such a product on an H200."""
    if tokens <= 16:
        return GemmConfig(16, 64, 128, warps=4, stages=4)
    if tokens <= MANY_TOKENS:
        return GemmConfig(64, 64, 128, warps=4, stages=4)
    if not _tma_can_load(tokens, weight):
        return GemmConfig(128, 128, 128, warps=8, stages=3)
    if weight.out_features >= 8192:
        return GemmConfig(64, 256, 128, warps=8, stages=3, stacked=3)
    if weight.out_features <= 1152:
        return GemmConfig(64, 64, 128, warps=4, stages=6 if weight.in_features > 2048 else 4)
    if weight.out_features > 4096:
        return GemmConfig(64, 128, 128, warps=4, stages=3)
    return GemmConfig(64, 128, 128, warps=4, stages=4)


def unpack_on_gpu(packed: Tensor) -> Tensor:
    """`unpack_int4` as one kernel: (out, in / 2) uint8 → (out, in) int8."""
    outputs, half = packed.shape
    codes = torch.empty(outputs, 2 * half, dtype=torch.int8, device=packed.device)
    tile = min(triton.next_power_of_2(half), 1024)
    pdl = overlaps(packed.device)
    grid = (outputs, triton.cdiv(half, tile))
    unpack_kernel[grid](packed, codes, HALF=half, TILE=tile, PDL=pdl, launch_pdl=pdl)
    note("unpack_int4")
    return codes


def integer_linear(
    rows: Rows,
    weight: ProjectionWeights,
    norm: Norm | None = None,
    epilogue: Epilogue = NOTHING,
) -> Tensor:
    """Quantize (tokens, in) rows and multiply them: (tokens, out), or half as many if gated.

    Args:
        rows: bf16 or float32, on a GPU; the result has the same dtype.
        weight: Integer weight with its scales.
        norm: Applied to the rows first; see `per_token_quant`.
        epilogue: Applied to the product before it is stored.

    Raises:
        EvaluationError: The rows are not on a GPU, or of another dtype than bf16 and float32.
    """
    given = rows.out if isinstance(rows, Unfinished) else rows
    require_gpu(given)
    codes, scales = per_token_quant(rows, weight.permutation, weight.block, weight.act_bits, norm)
    return integer_product(codes, scales, weight, given.dtype, epilogue)


def _tma_can_load(tokens: int, weight: ProjectionWeights) -> bool:
    """Whether TMA can load the tiles: one scale per row, rows of whole 16-byte units."""
    one_scale = weight.groups == 1
    return tokens > MANY_TOKENS and one_scale and weight.in_features % 32 == 0
