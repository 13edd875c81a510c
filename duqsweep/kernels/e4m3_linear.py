"""A linear layer in e4m3: inputs and weights of 8 bits, one scale per token and per output.

On a CPU the products are exact: a product of two numbers of e4m3 is a multiple of 2**-18 and less
than 2**18, so that float64 holds the sum of 2**17 of them. On a GPU they are those of its tensor
cores, which add in float32 or less, see `FAST_SUMS`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.e4m3 import LARGEST_E4M3, round_to_e4m3
from duqsweep.kernels.hadamard import signs
from duqsweep.kernels.launches import note
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.kernels.torch_operator import fake_of, operator

SMALLEST_SCALE = 1e-8  # the scale of a token of zeros, as in `triton_math`
CAPABILITY = (9, 0)  # of a GPU; older ones have no products with a scale per token and output
E4M3_BITS = 8
MULTIPLE = 16  # of widths, on a GPU
# False: partial sums leave the tensor cores, which keep fewer bits than float32, every 128 inputs.
FAST_SUMS = False


def device_reason(device: torch.device) -> str | None:
    """Why a device cannot multiply in e4m3; None: it can."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) >= CAPABILITY:
        return None
    return (
        "products in e4m3 with a scale per token and output need a GPU of compute capability 9.0 "
        f"or higher, got {torch.cuda.get_device_name(device)} with {major}.{minor}"
    )


def unsupported_reason(weights: ProjectionWeights) -> str | None:
    """Why a layer cannot be multiplied in e4m3 where it is; None: it can."""
    device = weights.values.device
    reason = device_reason(device)
    uneven = [n for n in (weights.in_features, weights.out_features) if n % MULTIPLE]
    if reason is None and uneven and device.type == "cuda":
        return f"products in e4m3 take widths that {MULTIPLE} divides on a GPU, got {uneven[0]}"
    return reason


@operator
def e4m3_linear(
    rows: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    permutation: Tensor | None,
    block: int,
) -> Tensor:
    """Permute, rotate and quantize tokens, and multiply them; rounded to a dtype once.

    An operator, so that torch.compile calls it as it is.

    Args:
        rows: (tokens, in), bf16 or float32. A token with NaN or infinity gives NaN.
        values: (out, in) float8_e4m3fn.
        scales: (out, 1) float32.
        bias: (out,), of the dtype of `rows`.
        permutation: (in,), the input channel of each permuted position.
        block: Channels per Hadamard block; 1: no rotation.

    Returns:
        (tokens, out), in the dtype of `rows`.

    Raises:
        EvaluationError: `rows` has another dtype.
    """
    if rows.dtype not in (torch.bfloat16, torch.float32):
        raise EvaluationError(f"kernel fp8 takes bfloat16 or float32 inputs, got {rows.dtype}")
    run = _on_gpu if rows.is_cuda else _exactly
    product = run(rows, values, scales, bias, permutation, block)
    note("product_e4m3")
    return product


@fake_of(e4m3_linear)
def _(
    rows: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    permutation: Tensor | None,
    block: int,
) -> Tensor:
    return rows.new_empty(len(rows), len(values))


def quantize_rows(rows: Tensor, permutation: Tensor | None, block: int) -> tuple[Tensor, Tensor]:
    """Numbers of e4m3 as (tokens, in) float32, and scales (tokens, 1) float32: largest |x| / 448.

    Everything is computed in float32, as in `per_token_quant`.
    """
    wide = rows.float()
    if permutation is not None:
        wide = wide.index_select(1, permutation)
    if block > 1:
        matrix = signs(block, torch.float32, wide.device)
        wide = (wide.reshape(-1, block) @ matrix).view(wide.shape) * block**-0.5
    scale = (wide.abs().amax(1, keepdim=True) / LARGEST_E4M3).clamp_min(SMALLEST_SCALE)
    return round_to_e4m3(wide / scale), scale


def _exactly(
    rows: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    permutation: Tensor | None,
    block: int,
) -> Tensor:
    codes, token_scales = quantize_rows(rows, permutation, block)
    product = codes.double() @ values.double().T
    product = product * token_scales.double() * scales.double().T
    return (product if bias is None else product + bias.double()).to(rows.dtype)


def _on_gpu(
    rows: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    permutation: Tensor | None,
    block: int,
) -> Tensor:
    # Imported here: an installation without a GPU has no Triton.
    from duqsweep.kernels.per_token_quant import per_token_quant

    codes, token_scales = per_token_quant(rows, permutation, block, E4M3_BITS, e4m3=True)
    columns, shared = values.t(), token_scales[:, None]
    if rows.dtype == torch.bfloat16:
        return torch._scaled_mm(
            codes,
            columns,
            scale_a=shared,
            scale_b=scales.T,
            bias=bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=FAST_SUMS,
        )
    # With a scale per token and output, torch only stores bf16.
    one = torch.ones((), device=rows.device)
    product = torch._scaled_mm(
        codes, columns, one, one, out_dtype=torch.float32, use_fast_accum=FAST_SUMS
    )
    product = product * shared * scales.T
    return product if bias is None else product + bias
