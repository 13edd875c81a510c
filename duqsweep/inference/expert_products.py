"""The products of a compiled action expert; layers with the same input are merged where possible.

Simulated layers compute what kernel `fake` does: inputs are rounded to the values of int8 times a
scale, and multiplied in floating point. A product in e4m3 is one operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.inference.fake_quant import FakeQuant, fake_quant_on, fake_quant_reason
from duqsweep.inference.float_products import product_of
from duqsweep.inference.weights import merged
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.policy.gemma import normalise


def adaptive_norm_linear(linears: Sequence[nn.Module]) -> nn.Module:
    """The start of a sublayer: gated residual, adaptive norm, and the products of its result.

    The module takes x, update, gate, factor and shift. It returns the stream x + update * gate,
    (tokens, width), and the concatenated products, (tokens, out).
    """
    weights = _computable(linears)
    if weights is None:
        return SeparateAdaptiveNormLinears(linears)
    if weights.numerics == "simulated":
        return FakeQuantNormLinear(weights)
    return AdaptiveNormLinear(product_of(weights))


def plain_linear(linear: nn.Module) -> nn.Module:
    """A product: (tokens, in) → (tokens, out)."""
    weights = _computable([linear])
    if weights is None:
        return linear
    return FakeQuantLinear(weights) if weights.numerics == "simulated" else product_of(weights)


def gated_linear(linear: nn.Module) -> nn.Module:
    """The product of tanh-GELU(gate) * up: (tokens, 2 * in) → (tokens, out)."""
    weights = _computable([linear])
    if weights is not None and weights.numerics == "simulated":
        return FakeQuantGatedLinear(weights)
    return GatedLinear(plain_linear(linear))


class AdaptiveNormLinear(nn.Module):
    """Gated residual, adaptive norm and one product."""

    def __init__(self, product: nn.Module) -> None:
        super().__init__()
        self.product = product

    def forward(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `adaptive_norm_linear`."""
        x = torch.addcmul(x, update, gate)
        rows = torch.addcmul(shift, normalise(x), factor).to(x.dtype)
        return x, self.product(rows)


class GatedLinear(nn.Module):
    """Gated GELU and one product."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, gate_up: Tensor) -> Tensor:
        """(tokens, 2 * in) → (tokens, out)."""
        gate, up = gate_up.chunk(2, dim=-1)
        return cast(Tensor, self.linear(F.gelu(gate, approximate="tanh") * up))


class SeparateAdaptiveNormLinears(nn.Module):
    """Gated residual and adaptive norm, then each layer separately."""

    def __init__(self, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(linears)

    def forward(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `adaptive_norm_linear`."""
        x = torch.addcmul(x, update, gate)
        rows = torch.addcmul(shift, normalise(x), factor).to(x.dtype)
        return x, torch.cat([linear(rows) for linear in self.linears], dim=-1)


class FakeQuantProduct(nn.Module):
    """A product whose input is fake-quantized."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weights: ProjectionWeights) -> None:
        super().__init__()
        self.quant: FakeQuant = fake_quant_on(weights)
        self.register_buffer("weight", weights.values)
        self.register_buffer("bias", weights.bias)


class FakeQuantNormLinear(FakeQuantProduct):
    """Gated residual, adaptive norm, fake quantization and one product."""

    def forward(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `adaptive_norm_linear`."""
        stream, rows = self.quant.norm_fake_quant(x, update, gate, factor, shift)
        return stream, F.linear(rows, self.weight, self.bias)


class FakeQuantLinear(FakeQuantProduct):
    """Fake quantization and one product."""

    def forward(self, rows: Tensor) -> Tensor:
        """(tokens, in) → (tokens, out)."""
        return F.linear(self.quant.fake_quant(rows), self.weight, self.bias)


class FakeQuantGatedLinear(FakeQuantProduct):
    """Gated GELU, fake quantization and one product."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """(tokens, 2 * in) → (tokens, out)."""
        return F.linear(self.quant.gated_fake_quant(gate_up), self.weight, self.bias)


def _computable(linears: Sequence[nn.Module]) -> ProjectionWeights | None:
    """The merged layers, if this file can compute them; None: the layers must be called."""
    weights = merged(linears, ("plain", "simulated", "e4m3"))
    if weights is None or (weights.numerics == "simulated" and fake_quant_reason(weights)):
        return None
    return weights
