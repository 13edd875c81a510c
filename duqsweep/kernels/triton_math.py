"""Arithmetic that several kernels share, written for Triton."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

SMALLEST_SCALE = tl.constexpr(1e-8)  # of a token of zeros
# Added to a float32 below 2^22, it rounds half to even and leaves the integer in the lowest bits;
# subtracting it again gives the rounded number.
ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def gelu(x):
    """The tanh form, as x times a sigmoid."""
    return x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
