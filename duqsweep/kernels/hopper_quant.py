"""Per-token quantization of bfloat16 rows: launches `cuda/per_token_quant.cu`.

On Hopper and later, whose kernels may start before the previous one ends.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from duqsweep.kernels import nvrtc
from duqsweep.kernels.machine import overlaps
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.unfinished import AttentionParts, ProductParts, Rows, Unfinished

SPAN, TILE = 16, 256  # channels of a row of a product, and of a warp's product
MOST_WARPS = 8
WIDEST, LARGEST_BLOCK = 16384, 128
EIGHT = 8  # channels that a thread loads at once
GROUP = 128  # outputs within which `gemm.row_order` permutes
ALIGNED = 16  # bytes


def can_quantize(rows: Rows, permutation: Tensor | None, block: int, norm: Norm | None) -> bool:
    """Whether `quantize` takes such rows; the arguments are those of `per_token_quant`."""
    tokens = rows.out if isinstance(rows, Unfinished) else rows
    if not tokens.is_cuda or tokens.dtype != torch.bfloat16 or not overlaps(tokens.device):
        return False
    width = tokens.shape[1]
    if width % SPAN or width > WIDEST or block > LARGEST_BLOCK:
        return False
    if isinstance(rows, AttentionParts):
        if width // rows.logs.shape[2] % EIGHT:
            return False
        tokens = rows.parts[0]
    if isinstance(rows, ProductParts) and (rows.parts.dtype != torch.int32 or width % GROUP):
        return False
    read = [tokens]
    if permutation is not None:
        if permutation.dtype != torch.int32:
            return False
        read.append(permutation)
    if norm is not None:
        read += norm.tensors()
    starts = all(tensor.data_ptr() % ALIGNED == 0 for tensor in read)
    return starts and tokens.stride(0) * tokens.element_size() % ALIGNED == 0


def quantize(
    rows: Rows,
    permutation: Tensor | None,
    block: int,
    largest: float,
    norm: Norm | None,
    codes: Tensor,
    scales: Tensor,
) -> None:
    """Fill codes and scales, and finish the product that `rows` may be.

    Args:
        rows: As in `per_token_quant`, as the next three.
        permutation: As above.
        block: As above.
        largest: The largest code.
        norm: As above.
        codes: (tokens, in).
        scales: (tokens,).
    """
    tokens, width = codes.shape
    tiles = -(-width // TILE)
    tiles_per_warp = -(-tiles // MOST_WARPS)
    warps = -(-tiles // tiles_per_warp)
    attention = rows if isinstance(rows, AttentionParts) else None
    product = rows if isinstance(rows, ProductParts) else None
    constants = {
        "WIDTH": width,
        "WARPS": warps,
        "TILES": tiles_per_warp,
        "BLOCK": block,
        "PERMUTED": int(permutation is not None),
        "NORM": 0 if norm is None else 1 if norm.bias is None else 2,
        "E4M3": int(codes.dtype == torch.float8_e4m3fn),
        "SOURCE": 1 if attention else 2 if product else 0,
        "PARTS": len(rows.parts) if isinstance(rows, Unfinished) else 0,
        "HEADS": attention.logs.shape[2] if attention else 1,
    }
    kernel = nvrtc.build("per_token_quant", constants)
    pointers = (
        None if tensor is None else tensor.data_ptr()
        for tensor in (
            rows if isinstance(rows, Tensor) else None,
            permutation,
            None if norm is None else norm.weight,
            None if norm is None else norm.bias,
            codes,
            scales,
            rows.parts if isinstance(rows, Unfinished) else None,
            None if attention is None else attention.logs,
            *_of_product(product),
        )
    )
    stride = rows.stride(0) if isinstance(rows, Tensor) else width
    kernel.launch_early(_Arguments(*pointers, stride, largest), (tokens, 1), 32 * warps)
    if product is not None:
        product.is_finished = True


def _of_product(product: ProductParts | None) -> list[Tensor | None]:
    if product is None:
        return [None] * 5
    factors = [product.weight_scales, product.token_scales]
    return [*factors, product.bias, product.residual, product.out]


class _Arguments(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                "rows",
                "permutation",
                "norm_weight",
                "norm_bias",
                "codes",
                "scales",
                "parts",
                "logs",
                "weight_scales",
                "token_scales",
                "bias",
                "residual",
                "out",
            )
        ),
        ("row_stride", ctypes.c_longlong),
        ("qmax", ctypes.c_float),
    )
