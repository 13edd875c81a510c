"""Kernel `loop`: fake quantization with one product per block, like the prototype; a baseline."""

from __future__ import annotations

from torch import Tensor, nn

from duqsweep.quant.linear import DuQuantLinear, LinearParts


class LoopRotation(nn.Module):
    """Slices, multiplies and writes back one block of channels after the other.

    Two launches per block: with blocks of 16 channels, the 126 layers of pi0.5's expert need about
    half a million launches for ten denoising steps. That is why the prototype was slow.
    """

    matrices: Tensor

    def __init__(self, matrices: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrices", matrices)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) → the same shape."""
        block = self.matrices.shape[-1]
        shared = self.matrices.shape[0] == 1
        rotated = rows.clone()
        for i in range(rows.shape[1] // block):
            columns = slice(i * block, (i + 1) * block)
            rotated[:, columns] = rows[:, columns] @ self.matrices[0 if shared else i]
        return rotated


def build(parts: LinearParts) -> nn.Module:
    """The layer with one product per block."""
    return DuQuantLinear(parts, LoopRotation, mergeable=False)
