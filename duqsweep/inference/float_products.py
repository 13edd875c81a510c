"""Single products of a compiled policy in floating point, those in e4m3 included."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.kernels.e4m3_linear import e4m3_linear
from duqsweep.kernels.projection_weights import ProjectionWeights


def product_of(weights: ProjectionWeights) -> nn.Module:
    """The product of unquantized or e4m3 weights: (tokens, in) → (tokens, out)."""
    return E4m3Product(weights) if weights.is_e4m3 else Linear(weights)


class Linear(nn.Module):
    """A product of unquantized weights."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weights: ProjectionWeights) -> None:
        super().__init__()
        self.register_buffer("weight", weights.values)
        self.register_buffer("bias", weights.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """(tokens, in) → (tokens, out)."""
        return F.linear(rows, self.weight, self.bias)


class E4m3Product(nn.Module):
    """Permutation, rotation, quantization and product: one operator, which torch.compile calls."""

    codes: Tensor
    scales: Tensor
    bias: Tensor | None
    permutation: Tensor | None

    def __init__(self, weights: ProjectionWeights) -> None:
        super().__init__()
        self.block = weights.block
        self.register_buffer("codes", weights.values)
        self.register_buffer("scales", weights.scales)
        self.register_buffer("bias", weights.bias)
        self.register_buffer("permutation", weights.permutation)

    def forward(self, rows: Tensor) -> Tensor:
        """(tokens, in) → (tokens, out)."""
        made: Tensor = e4m3_linear(
            rows, self.codes, self.scales, self.bias, self.permutation, self.block
        )
        return made
