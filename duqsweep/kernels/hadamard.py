"""The Walsh-Hadamard matrix without its factor, as kernels read it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def signs(block: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The signs of the Walsh-Hadamard matrix of a block, (block, block)."""
    matrix = torch.ones(1, 1)
    while len(matrix) < block:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix.to(device, dtype)
