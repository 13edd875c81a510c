"""Capabilities of the machine that runs the kernels."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from duqsweep.errors import EvaluationError

HOPPER = (9, 0)  # compute capability


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on the CPU."""
    return bool(triton.knobs.runtime.interpret)


def require_gpu(tensor: Tensor) -> None:
    """Raise EvaluationError unless integer kernels can run on the tensor."""
    if not tensor.is_cuda and not interpreted():
        raise EvaluationError(
            f"kernels int8 and w4a8 run on a CUDA GPU, got a tensor on {tensor.device}"
        )
    if tensor.dtype not in (torch.bfloat16, torch.float32):
        raise EvaluationError(
            f"kernels int8 and w4a8 take bfloat16 or float32 inputs, got {tensor.dtype}"
        )


@cache
def overlaps(device: torch.device) -> bool:
    """Whether the GPU has programmatic dependent launch: a kernel starts early and waits inside."""
    return not interpreted() and torch.cuda.get_device_capability(device) >= HOPPER
