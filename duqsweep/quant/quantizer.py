"""Symmetric quantization as pure functions: scales, codes, and dequantized values.

A code is an integer, or a number of e4m3.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from duqsweep.kernels.e4m3 import LARGEST_E4M3, round_to_e4m3
from duqsweep.kernels.projection_weights import largest_code
from duqsweep.spec import Numbers, WeightScale

SMALLEST_SCALE = 1e-12  # avoids a division by zero for channels of zeros

# Candidates: largest value / clipping point. The prototype's five suit 4 bits and more; for 1,000
# normally distributed weights, the best is 1.9 at 3 bits and 3.3 at 2 bits.
CLIPS = (0.5, 0.75, 1.0, 1.25, 1.5)
LOW_BIT_CLIPS = (*CLIPS, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0)

# Weights that are processed at once in float64: 2 MiB, which fit into a CPU's cache (several times
# as fast as the whole weight at once), or 128 MiB, which keep a GPU busy. Rounding takes a few
# times this memory.
CPU_WEIGHTS_AT_ONCE, GPU_WEIGHTS_AT_ONCE = 2**18, 2**24


def row_slices(weight: Tensor, multiple: int) -> Iterator[slice]:
    """Slices of the rows of a weight (out, in), each of a multiple of `multiple` rows."""
    at_once = GPU_WEIGHTS_AT_ONCE if weight.is_cuda else CPU_WEIGHTS_AT_ONCE
    count = max(1, at_once // (weight.shape[1] * multiple)) * multiple
    for start in range(0, weight.shape[0], count):
        yield slice(start, start + count)


def largest(bits: int, numbers: Numbers) -> float:
    """The largest code, which the largest value gets."""
    return LARGEST_E4M3 if numbers == "e4m3" else float(largest_code(bits))


def round_to_codes(scaled: Tensor, bits: int, numbers: Numbers) -> Tensor:
    """The nearest codes, ties to even, clamped to those that there are; the dtype is kept."""
    if numbers == "e4m3":
        return round_to_e4m3(scaled)
    qmax = largest_code(bits)
    return torch.round(scaled).clamp_(-qmax - 1, qmax)


def weight_scales(
    weight: Tensor, bits: int, how: WeightScale, group_size: int, numbers: Numbers = "integer"
) -> Tensor:
    """Positive scales: one per row, or one per group of input channels of a row.

    Args:
        weight: (out, in).
        bits: 2 to 8.
        how: "absmax": the largest |weight| gets the largest code. "mse": as in the prototype, of a
            few clipping points, the one with the smallest squared error.
        group_size: Input channels per scale, a divisor of in; 0: the whole row.
        numbers: What the codes are.

    Returns:
        (out, in / group_size or 1), in the dtype of `weight`.
    """
    groups = weight.reshape(weight.shape[0], -1, group_size or weight.shape[1])
    base: Tensor = (groups.abs().amax(-1) / largest(bits, numbers)).clamp_min(SMALLEST_SCALE)
    if how == "absmax":
        return base
    best = base
    least = torch.full_like(base, torch.inf)
    for clip in CLIPS if bits >= 4 else LOW_BIT_CLIPS:
        scale = base / clip
        exact = groups / scale[..., None]
        error = round_to_codes(exact, bits, numbers).sub_(exact).square_().mean(-1) * scale.square()
        best = scale.where(error < least, best)
        least = torch.minimum(error, least)
    return best


def weight_codes(weight: Tensor, scales: Tensor, bits: int, numbers: Numbers = "integer") -> Tensor:
    """(out, in) int8 or float8_e4m3fn codes of a weight under `scales` from `weight_scales`."""
    groups = weight.reshape(*scales.shape, -1) / scales[..., None]
    return round_to_codes(groups, bits, numbers).flatten(1).to(code_dtype(numbers))


def code_dtype(numbers: Numbers) -> torch.dtype:
    """How the codes of a weight are stored."""
    return torch.float8_e4m3fn if numbers == "e4m3" else torch.int8


def decode_weight(codes: Tensor, scales: Tensor) -> Tensor:
    """The dequantized weight: (out, in), in the dtype of `scales`."""
    groups = codes.view(*scales.shape, -1).to(scales.dtype)
    weight: Tensor = (groups * scales[..., None]).flatten(1)
    return weight


def quantize_tokens(rows: Tensor, bits: int, numbers: Numbers = "integer") -> Tensor:
    """Round every row with its own scale, largest |x| / largest code; the dtype is kept.

    There is nothing to clamp, since the scale comes from the largest value. e4m3 is rounded to in
    float32: a quotient that bf16 has rounded is often half way between two of its numbers.
    """
    if numbers == "e4m3":
        wide = rows if rows.dtype == torch.float64 else rows.float()
        scale = (wide.abs().amax(-1, keepdim=True) / LARGEST_E4M3).clamp_min(1e-8)
        return (round_to_e4m3(wide / scale) * scale).to(rows.dtype)
    scale = rows.abs().amax(-1, keepdim=True) / largest_code(bits)
    scale = scale.clamp_min(1e-8)  # a token of zeros, also in bf16
    rounded: Tensor = torch.round(rows / scale) * scale
    return rounded
