"""Numbers of e4m3 (`float8_e4m3fn`): a sign, 4 bits of exponent, 3 of fraction; no infinity."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_E4M3 = 448.0
SMALLEST_NORMAL = 2.0**-6  # below it the numbers are 2**-9 apart
STEP = 2.0**-3  # distance to the next number, as a fraction of the power of two below


def round_to_e4m3(values: Tensor) -> Tensor:
    """The nearest numbers of e4m3, ties to even; what is larger than 448 becomes 448.

    Computed in float64 for float64, otherwise in float32, without float8 arithmetic, so that every
    device and torch.compile can do it; a conversion from float64 would round twice.

    Args:
        values: Of any shape; NaN stays NaN.

    Returns:
        Same shape and dtype; bf16 and wider hold every number of e4m3.
    """
    wide = values if values.dtype == torch.float64 else values.float()
    clamped = wide.clamp(-LARGEST_E4M3, LARGEST_E4M3)
    # The exponent's bits alone are the power of two below |x|.
    bits, exponent = (
        (torch.int64, 0x7FF0000000000000)
        if wide.dtype == torch.float64
        else (torch.int32, 0x7F800000)
    )
    power = (clamped.view(bits) & exponent).view(wide.dtype)
    step = power.clamp_min(SMALLEST_NORMAL) * STEP
    return ((clamped / step).round() * step).to(values.dtype)
