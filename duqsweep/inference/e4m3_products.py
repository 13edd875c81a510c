"""Products in e4m3 of a compiled policy: one operator each, which torch.compile calls as it is."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.kernels.e4m3_linear import e4m3_linear
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.kernels.rotary import Rotary, Table


class E4m3Product(nn.Module):
    """Permutation, rotation, quantization and product."""

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


class E4m3Norm(nn.Module):
    """Norm and one product; see `prefix_products.norm_linear`."""

    def __init__(self, norm: Norm, weights: ProjectionWeights, rotary: Rotary | None) -> None:
        super().__init__()
        self.norm, self.rotary = norm, rotary
        self.product = E4m3Product(weights)

    def forward(self, x: Tensor, table: Table | None = None) -> Tensor:
        """See `prefix_products.norm_linear`."""
        products = cast(Tensor, self.product(self.norm.apply(x)))
        if self.rotary is None or table is None:
            return products
        return self.rotary.apply(products, table)


class E4m3Residual(nn.Module):
    """A product and the residual connection; see `prefix_products.linear_residual`."""

    def __init__(self, weights: ProjectionWeights) -> None:
        super().__init__()
        self.product = E4m3Product(weights)

    def forward(self, rows: Tensor, x: Tensor) -> Tensor:
        """See `prefix_products.linear_residual`."""
        return cast(Tensor, x + self.product(rows))


class E4m3Mlp(nn.Module):
    """Norm, product, tanh-GELU, product and the residual connection; see `prefix_products.mlp`."""

    def __init__(
        self, norm: Norm, first: ProjectionWeights, last: ProjectionWeights, gated: bool
    ) -> None:
        super().__init__()
        self.first, self.last = E4m3Norm(norm, first, None), E4m3Residual(last)
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        """See `prefix_products.mlp`."""
        hidden = self.first(x)
        if self.gated:
            gate, up = hidden.chunk(2, dim=-1)
            hidden = F.gelu(gate, approximate="tanh") * up
        else:
            hidden = F.gelu(hidden, approximate="tanh")
        return cast(Tensor, self.last(hidden, x))
