"""What the machine that runs the kernels can do."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from duqsweep.errors import EvaluationError

HOPPER = (9, 0)


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on the CPU."""
    return bool(triton.knobs.runtime.interpret)


def require_gpu(tensor: Tensor) -> None:
    """Raise EvaluationError unless kernels can run on the tensor."""
    if not tensor.is_cuda and not interpreted():
        raise EvaluationError(
            f"kernels int8 and w4a8 run on a CUDA GPU, and got a tensor on {tensor.device}"
        )
    if tensor.dtype not in (torch.bfloat16, torch.float32):
        raise EvaluationError(
            f"kernels int8 and w4a8 take bfloat16 or float32 inputs, got {tensor.dtype}"
        )


@cache
def overlaps(device: torch.device) -> bool:
    """Whether a kernel may start before the one ahead of it has ended, and wait for it inside."""
    return not interpreted() and torch.cuda.get_device_capability(device) >= HOPPER
