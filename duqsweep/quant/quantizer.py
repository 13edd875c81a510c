"""Symmetric quantization as pure functions: scales, integer codes, and dequantized values."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from duqsweep.kernels.projection_weights import largest_code
from duqsweep.spec import WeightScale

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


def round_to_codes(values: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Round values / scale half to even, and clamp to the signed integers of `bits` bits."""
    qmax = largest_code(bits)
    return torch.round(values / scale).clamp(-qmax - 1, qmax)


def weight_scales(weight: Tensor, bits: int, how: WeightScale, group_size: int) -> Tensor:
    """Positive scales: one per row, or one per group of input channels of a row.

    Args:
        weight: (out, in).
        bits: 2 to 8.
        how: "absmax": the largest |weight| gets the largest code. "mse": as in the prototype, of a
            few clipping points, the one with the smallest squared error.
        group_size: Input channels per scale, a divisor of in; 0: the whole row.

    Returns:
        (out, in / group_size or 1), in the dtype of `weight`.
    """
    groups = weight.reshape(weight.shape[0], -1, group_size or weight.shape[1])
    base: Tensor = (groups.abs().amax(-1) / largest_code(bits)).clamp_min(SMALLEST_SCALE)
    if how == "absmax":
        return base
    best, qmax = base, largest_code(bits)
    least = torch.full_like(base, torch.inf)
    for clip in CLIPS if bits >= 4 else LOW_BIT_CLIPS:
        scale = base / clip
        exact = groups / scale[..., None]
        rounded = exact.round().clamp_(-qmax - 1, qmax)
        error = rounded.sub_(exact).square_().mean(-1) * scale.square()
        best = scale.where(error < least, best)
        least = torch.minimum(error, least)
    return best


def weight_codes(weight: Tensor, scales: Tensor, bits: int) -> Tensor:
    """(out, in) int8 codes of a weight under `scales` from `weight_scales`."""
    groups = weight.reshape(*scales.shape, -1)
    return round_to_codes(groups, scales[..., None], bits).flatten(1).to(torch.int8)


def decode_weight(codes: Tensor, scales: Tensor) -> Tensor:
    """The dequantized weight: (out, in), in the dtype of `scales`."""
    groups = codes.view(*scales.shape, -1).to(scales.dtype)
    weight: Tensor = (groups * scales[..., None]).flatten(1)
    return weight


def quantize_tokens(rows: Tensor, bits: int) -> Tensor:
    """Round every row with its own scale, largest |x| / largest code; the dtype is kept.

    There is nothing to clamp, since the scale comes from the largest value.
    """
    scale = rows.abs().amax(-1, keepdim=True) / largest_code(bits)
    scale = scale.clamp_min(1e-8)  # a token of zeros, also in bf16
    rounded: Tensor = torch.round(rows / scale) * scale
    return rounded
