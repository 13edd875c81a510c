"""Quantized products of a fused action expert: layers that read the same input are one product.

Takes what `freeze` made with kernel `fake`, whose arithmetic this is: values are rounded as
integers would be, products are made in floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duqsweep.errors import EvaluationError
from duqsweep.inference.rounding import InputTransform, Rounding, rounding_on
from duqsweep.quant.kernels.fake import BatchedRotation
from duqsweep.quant.linear import DuQuantLinear, Reorder, RoundTokens


class MergedLinears:
    """Makes the products of an expert layer whose linears `freeze` replaced."""

    def entry(self, linears: Sequence[nn.Module]) -> nn.Module:
        """Adaptive norm and product of layers that read the same input.

        Raises:
            EvaluationError: A layer is not quantized, or the layers transform their inputs in
                different ways or in one that cannot be merged.
        """
        return QuantizedEntry(*_merged(linears))

    def exit(self, linear: nn.Module) -> nn.Module:
        """Product of one layer; raises as `entry` does."""
        return QuantizedExit(*_merged([linear]))

    def gated_exit(self, linear: nn.Module) -> nn.Module:
        """Product of one layer behind GELU and gate; raises as `entry` does."""
        return QuantizedGatedExit(*_merged([linear]))


class RoundedProduct(nn.Module):
    """A product of rounded tokens."""

    weight: Tensor

    def __init__(self, rounding: Rounding, weight: Tensor) -> None:
        super().__init__()
        self.rounding = rounding
        self.register_buffer("weight", weight)


class QuantizedEntry(RoundedProduct):
    """Gated residual, adaptive norm, rotation, rounding and one product."""

    def forward(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The stream x + update * gate, (tokens, width), and the product of its norm."""
        stream, rows = self.rounding.enter(x, update, gate, factor, shift)
        return stream, F.linear(rows, self.weight)


class QuantizedExit(RoundedProduct):
    """Rotation, rounding and one product."""

    def forward(self, rows: Tensor) -> Tensor:
        """(tokens, in) → (tokens, out)."""
        return F.linear(self.rounding.leave(rows), self.weight)


class QuantizedGatedExit(RoundedProduct):
    """GELU, gate, rotation, rounding and one product."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """(tokens, 2 * in) → (tokens, out)."""
        return F.linear(self.rounding.leave_gated(gate_up), self.weight)


def _merged(linears: Sequence[nn.Module]) -> tuple[Rounding, Tensor]:
    layers = [_quantized(linear) for linear in linears]
    first, *others = [_transform(layer) for layer in layers]
    for other in others:
        same = torch.equal(first.order, other.order) and torch.equal(first.matrix, other.matrix)
        if not same or first.bits != other.bits:
            raise EvaluationError(
                "layers that read the same input cannot be merged: they transform it in "
                "different ways (rotation must be hadamard or none, smoothing 0)"
            )
    return rounding_on(first), torch.cat([layer.weight for layer in layers])


def _quantized(linear: nn.Module) -> DuQuantLinear:
    if not isinstance(linear, DuQuantLinear):
        raise EvaluationError(f"a {type(linear).__name__} cannot be merged: it is not quantized")
    if len(linear.after) or linear.bias is not None:
        raise EvaluationError("a layer with rotated outputs or a bias cannot be merged")
    return linear


def _transform(layer: DuQuantLinear) -> InputTransform:
    stages = list(layer.before)
    order = torch.arange(layer.in_features, device=layer.weight.device)
    if isinstance(stages[0], Reorder):
        order = cast(Tensor, stages.pop(0).order)
    matrix = torch.ones(1, 1, device=layer.weight.device, dtype=layer.weight.dtype)
    if isinstance(stages[0], BatchedRotation):
        matrices = cast(Tensor, stages.pop(0).matrices)
        if len(matrices) > 1:
            raise EvaluationError("layers with a rotation for each block cannot be merged")
        matrix = matrices[0]
    if len(stages) != 1 or not isinstance(stages[0], RoundTokens):
        raise EvaluationError(
            "only layers with one rotation and per-token activation scales can be merged"
        )
    return InputTransform(order, matrix, stages[0].bits)
