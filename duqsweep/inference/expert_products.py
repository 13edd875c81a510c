"""The products of a compiled action expert; layers that read the same input are one where possible.

Simulated layers are computed as kernel `fake` does it: values are rounded as integers would be, and
multiplied in floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.inference.rounding import Rounding, rounding_on, rounding_reason
from duqsweep.inference.weights import merged
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.policy.gemma import normalise


def norm_linear(linears: Sequence[nn.Module]) -> nn.Module:
    """What opens a sublayer: gated residual, adaptive norm, and the products of its result.

    The module takes x, update, gate, factor and shift. It returns the stream x + update * gate,
    (tokens, width), and the products side by side, (tokens, out).
    """
    weights = _computable(linears)
    if weights is None:
        return SeparateNormLinears(linears)
    return (RoundedNormLinear if weights.numerics == "simulated" else NormLinear)(weights)


def plain_linear(linear: nn.Module) -> nn.Module:
    """A product: (tokens, in) → (tokens, out)."""
    weights = _computable([linear])
    if weights is None:
        return linear
    return (RoundedLinear if weights.numerics == "simulated" else Linear)(weights)


def gated_linear(linear: nn.Module) -> nn.Module:
    """A product of tanh-GELU of the gate times up: (tokens, 2 * in) → (tokens, out)."""
    weights = _computable([linear])
    if weights is not None and weights.numerics == "simulated":
        return RoundedGatedLinear(weights)
    return GatedLinear(plain_linear(linear))


class Linear(nn.Module):
    """A product in floating point."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weights: ProjectionWeights) -> None:
        super().__init__()
        self.register_buffer("weight", weights.values)
        self.register_buffer("bias", weights.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """(tokens, in) → (tokens, out)."""
        return F.linear(rows, self.weight, self.bias)


class NormLinear(Linear):
    """Gated residual, adaptive norm and one product."""

    def forward(  # type: ignore[override]
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `norm_linear`."""
        x = torch.addcmul(x, update, gate)
        rows = torch.addcmul(shift, normalise(x), factor).to(x.dtype)
        return x, F.linear(rows, self.weight, self.bias)


class GatedLinear(nn.Module):
    """GELU, gate and one product."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, gate_up: Tensor) -> Tensor:
        """(tokens, 2 * in) → (tokens, out)."""
        gate, up = gate_up.chunk(2, dim=-1)
        return cast(Tensor, self.linear(F.gelu(gate, approximate="tanh") * up))


class SeparateNormLinears(nn.Module):
    """Gated residual and adaptive norm, then one product after the other."""

    def __init__(self, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(linears)

    def forward(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `norm_linear`."""
        x = torch.addcmul(x, update, gate)
        rows = torch.addcmul(shift, normalise(x), factor).to(x.dtype)
        return x, torch.cat([linear(rows) for linear in self.linears], dim=-1)


class RoundedProduct(nn.Module):
    """A product of rounded tokens."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weights: ProjectionWeights) -> None:
        super().__init__()
        self.rounding: Rounding = rounding_on(weights)
        self.register_buffer("weight", weights.values)
        self.register_buffer("bias", weights.bias)


class RoundedNormLinear(RoundedProduct):
    """Gated residual, adaptive norm, rotation, rounding and one product."""

    def forward(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `norm_linear`."""
        stream, rows = self.rounding.enter(x, update, gate, factor, shift)
        return stream, F.linear(rows, self.weight, self.bias)


class RoundedLinear(RoundedProduct):
    """Rotation, rounding and one product."""

    def forward(self, rows: Tensor) -> Tensor:
        """(tokens, in) → (tokens, out)."""
        return F.linear(self.rounding.leave(rows), self.weight, self.bias)


class RoundedGatedLinear(RoundedProduct):
    """GELU, gate, rotation, rounding and one product."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """(tokens, 2 * in) → (tokens, out)."""
        return F.linear(self.rounding.leave_gated(gate_up), self.weight, self.bias)


def _computable(linears: Sequence[nn.Module]) -> ProjectionWeights | None:
    weights = merged(linears, ("plain", "simulated"))
    if weights is None or (weights.numerics == "simulated" and rounding_reason(weights)):
        return None
    return weights
