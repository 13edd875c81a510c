"""The products of a compiled prefix layer, with the norm before and the residual after them.

Layers with the same input are merged if all are unquantized, all multiply integers, or all multiply
in e4m3; otherwise they are called one by one. Rows are (tokens, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.inference.float_products import product_of
from duqsweep.inference.gemm_products import on_warp_groups
from duqsweep.inference.integer_products import (
    integer_linear_residual,
    integer_norm,
    quantized_mlp,
)
from duqsweep.inference.weights import merged, weights_of
from duqsweep.kernels.gelu_linear import gelu_linear
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.projection_weights import Numerics, ProjectionWeights, pad_inputs, pad_outputs
from duqsweep.kernels.rotary import Rotary, Table
from duqsweep.policy.gemma import RmsNorm

MERGEABLE: tuple[Numerics, ...] = ("plain", "integer", "e4m3")
CACHE_LINE = 128  # channels; SigLIP's 4304 hidden ones become 4352


def norm_linear(
    norm: Norm, linears: Sequence[nn.Module], dtype: torch.dtype, rotary: Rotary | None = None
) -> nn.Module:
    """One module: x, of dtype, → the concatenated products of its norm.

    With `rotary`, the module also takes `table` and applies rotary positions.
    """
    weights = merged(linears, MERGEABLE)
    if weights is None:
        return SeparateNormLinears(norm, linears, rotary)
    if weights.is_integer:
        return integer_norm(norm, weights, dtype, rotary)
    return NormLinear(norm, product_of(weights), rotary)


def linear_residual(linear: nn.Module, dtype: torch.dtype) -> nn.Module:
    """One module: (rows, x), of dtype, → x plus the product of rows."""
    weights = weights_of(linear)
    if weights is None or weights.numerics == "simulated":
        return SeparateLinearResidual(linear)
    if weights.is_integer:
        return integer_linear_residual(weights, dtype)
    return LinearResidual(product_of(weights))


def mlp(norm: Norm, linears: Sequence[nn.Module], dtype: torch.dtype) -> nn.Module:
    """One module: x, of dtype, → x plus the MLP of its norm.

    linears: (first, last), or (gate, up, last).
    """
    first, last = merged(linears[:-1], MERGEABLE), weights_of(linears[-1])
    if first is None or last is None or first.numerics != last.numerics:
        return SeparateMlp(norm, linears)
    gated = len(linears) == 3
    fused = first.is_e4m3 and all(on_warp_groups(part, dtype) for part in (first, last))
    if first.is_integer or fused:
        return quantized_mlp(norm, first, last, gated, dtype)
    if first.numerics == "plain" and not gated:
        return GeluMlp(norm, first, last)
    return Mlp(norm, product_of(first), product_of(last), gated)


class NormLinear(nn.Module):
    """Norm and one product."""

    def __init__(self, norm: Norm, product: nn.Module, rotary: Rotary | None) -> None:
        super().__init__()
        self.norm, self.product, self.rotary = norm, product, rotary

    def forward(self, x: Tensor, table: Table | None = None) -> Tensor:
        """See `norm_linear`."""
        products = cast(Tensor, self.product(self.norm.apply(x)))
        if self.rotary is None or table is None:
            return products
        return self.rotary.apply(products, table)


class LinearResidual(nn.Module):
    """A product and the residual connection."""

    def __init__(self, product: nn.Module) -> None:
        super().__init__()
        self.product = product

    def forward(self, rows: Tensor, x: Tensor) -> Tensor:
        """See `linear_residual`."""
        return cast(Tensor, x + self.product(rows))


class Mlp(nn.Module):
    """Two products with tanh-GELU, gated or not, between them."""

    def __init__(self, norm: Norm, first: nn.Module, last: nn.Module, gated: bool) -> None:
        super().__init__()
        self.first, self.last = NormLinear(norm, first, None), LinearResidual(last)
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        """See `mlp`."""
        hidden = self.first(x)
        if self.gated:
            gate, up = hidden.chunk(2, dim=-1)
            hidden = F.gelu(gate, approximate="tanh") * up
        else:
            hidden = F.gelu(hidden, approximate="tanh")
        return cast(Tensor, self.last(hidden, x))


class GeluMlp(nn.Module):
    """Two unquantized products with tanh-GELU between them, which is the first one's epilogue."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: Norm, first: ProjectionWeights, last: ProjectionWeights) -> None:
        super().__init__()
        self.norm = norm
        # Pad rows to whole cache lines; otherwise torch.compile pads them and copies each product.
        more = -first.out_features % CACHE_LINE
        first, last = pad_outputs(first, more), pad_inputs(last, more)
        self.register_buffer("weight", first.values)
        self.register_buffer("bias", first.bias)
        self.last = LinearResidual(product_of(last))

    def forward(self, x: Tensor) -> Tensor:
        """See `mlp`."""
        hidden = gelu_linear(self.norm.apply(x), self.weight, self.bias)
        return cast(Tensor, self.last(hidden, x))


class SeparateNormLinears(nn.Module):
    """Norm, then each layer separately."""

    def __init__(self, norm: Norm, linears: Sequence[nn.Module], rotary: Rotary | None) -> None:
        super().__init__()
        self.norm, self.linears, self.rotary = norm, nn.ModuleList(linears), rotary

    def forward(self, x: Tensor, table: Table | None = None) -> Tensor:
        """See `norm_linear`."""
        rows = self.norm.apply(x)
        products = torch.cat([linear(rows) for linear in self.linears], dim=-1)
        if self.rotary is None or table is None:
            return products
        return self.rotary.apply(products, table)


class SeparateLinearResidual(nn.Module):
    """A layer that cannot be merged, and the residual connection."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, rows: Tensor, x: Tensor) -> Tensor:
        """See `linear_residual`."""
        return cast(Tensor, x + self.linear(rows))


class SeparateMlp(nn.Module):
    """An MLP whose layers are called separately."""

    def __init__(self, norm: Norm, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norm = norm
        *first, self.last = linears
        self.first = nn.ModuleList(first)

    def forward(self, x: Tensor) -> Tensor:
        """See `mlp`."""
        rows = self.norm.apply(x)
        gate, *up = [linear(rows) for linear in self.first]
        hidden = F.gelu(gate, approximate="tanh")
        return cast(Tensor, x + self.last(hidden * up[0] if up else hidden))


def norm_record(norm: RmsNorm | nn.LayerNorm) -> Norm:
    """The norm's tensors in float32."""
    weight = norm.weight.detach().float()
    if isinstance(norm, nn.LayerNorm):
        return Norm(weight, norm.bias.detach().float())
    return Norm(1.0 + weight)
