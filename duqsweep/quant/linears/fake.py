"""Kernel `fake`: fake quantization, with all blocks of a rotation in one product."""

from __future__ import annotations

from torch import Tensor, nn

from duqsweep.quant.linear import DuQuantLinear, LinearParts
from duqsweep.quant.rotation import rotate_blocks


class BatchedRotation(nn.Module):
    """Multiplies every block of channels by its matrix, in one batched product."""

    matrices: Tensor

    def __init__(self, matrices: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrices", matrices)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) → the same shape."""
        return rotate_blocks(rows, self.matrices)


def build(parts: LinearParts) -> nn.Module:
    """The layer with batched rotations."""
    return DuQuantLinear(parts, BatchedRotation)
