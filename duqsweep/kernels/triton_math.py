"""Arithmetic that several Triton kernels share."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

SMALLEST_SCALE = tl.constexpr(1e-8)  # the scale of a token of zeros
# 1.5 * 2^23. Adding it to a float32 with |x| < 2^22 rounds x half to even and leaves the integer in
# the lowest bits of the result; subtracting it again gives the rounded number.
ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def gelu(x):
    """tanh-GELU, written as x times a sigmoid."""
    return x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
