"""Quantized products of a fused action expert: layers that read the same input are one product.

Takes what `freeze` made. The arithmetic is that of kernel `fake`, written so that a compiler can
put norm, rotation and rounding into one kernel: each rotated channel is a sum over the channels of
its block, which needs no intermediate result in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duqsweep.errors import EvaluationError
from duqsweep.quant.kernels.fake import BatchedRotation
from duqsweep.quant.linear import DuQuantLinear, Reorder, RoundTokens
from duqsweep.quant.quantizer import largest_code

NORM_EPS = 1e-6  # of Gemma's RMSNorm
SMALLEST_SCALE = 1e-8  # as in `quantize_tokens`


class MergedLinears:
    """Makes the products of an expert layer whose linears `freeze` replaced (kernel `fake`)."""

    def __init__(self, inline: bool = False, wide_from: int = 0) -> None:
        """How the work is cut into kernels once it is compiled; the result is the same.

        Args:
            inline: Norm, rotation and rounding in one kernel, at the price of computing each
                normed channel once for every channel of its block.
            wide_from: From this many input channels on, layers rotate on the whole device and round
                in a kernel behind it; below, one kernel does both, with few threads a token.
        """
        self.inline, self.wide_from = inline, wide_from

    def entry(self, linears: Sequence[nn.Module]) -> nn.Module:
        """Adaptive norm and product of layers that read the same input."""
        return QuantizedEntry(linears, self.inline)

    def exit(self, linear: nn.Module) -> nn.Module:
        """Product of one layer."""
        return QuantizedExit(linear, self.wide_from)


class RotatedTokens(nn.Module):
    """Permutation, block rotation and rounding of tokens, shared by the layers that read them."""

    matrix: Tensor
    order: Tensor
    weight: Tensor

    def __init__(self, linears: Sequence[nn.Module]) -> None:
        """Merge layers.

        Raises:
            EvaluationError: A layer is not quantized, or the layers transform their inputs in
                different ways or in one that cannot be merged.
        """
        super().__init__()
        layers = [_quantized(linear) for linear in linears]
        order, matrix, bits = _transform(layers[0])
        for layer in layers[1:]:
            other_order, other_matrix, other_bits = _transform(layer)
            same = torch.equal(order, other_order) and torch.equal(matrix, other_matrix)
            if not same or bits != other_bits:
                raise EvaluationError(
                    "layers that read the same input cannot be merged: they transform it in "
                    "different ways (rotation must be hadamard or none, smoothing 0)"
                )
        self.top = largest_code(bits)
        self.block = matrix.shape[0]
        self.register_buffer("order", order)
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("weight", torch.cat([layer.weight for layer in layers]))

    def rotated(self, channels: Callable[[int], Tensor]) -> Tensor:
        """(tokens, width) in float32 from the j-th channels of all blocks, (tokens, blocks, 1)."""
        total = channels(0).float() * self.matrix[0]
        for j in range(1, self.block):
            total = total + channels(j).float() * self.matrix[j]
        return total.flatten(-2)

    def product(self, rotated: Tensor, dtype: torch.dtype) -> Tensor:
        """(tokens, out) from rotated tokens: rounded and multiplied."""
        scale = (rotated.abs().amax(-1, keepdim=True) / self.top).clamp_min(SMALLEST_SCALE)
        return F.linear((torch.round(rotated / scale) * scale).to(dtype), self.weight)

    def take(self, tensor: Tensor, j: int) -> Tensor:
        """From channels in their own order, (..., width), the j-th of each block."""
        return tensor.index_select(-1, self.order[j :: self.block]).unsqueeze(-1)

    def take_permuted(self, tensor: Tensor, j: int) -> Tensor:
        """From channels that are permuted already, the j-th of each block."""
        return tensor.view(*tensor.shape[:-1], -1, self.block)[..., j : j + 1]


class QuantizedEntry(RotatedTokens):
    """Gated residual, adaptive norm, rotation, rounding and one product."""

    def __init__(self, linears: Sequence[nn.Module], inline: bool) -> None:
        super().__init__(linears)
        self.inline = inline

    def forward(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The stream x + update * gate, (tokens, width), and the product of its norm."""
        total = torch.addcmul(x, update, gate)
        inverse = torch.rsqrt(total.float().square().mean(-1, keepdim=True) + NORM_EPS)
        if self.inline:

            def normed(j: int) -> Tensor:
                part = [self.take(tensor, j) for tensor in (x, update, gate, factor, shift)]
                summed = (part[0] + part[1] * part[2]).float()
                return summed * inverse[..., None] * part[3] + part[4]

            return total, self.product(self.rotated(normed), x.dtype)
        rows = (total.float() * inverse * factor + shift).to(x.dtype)
        rows = _in_memory(rows.index_select(-1, self.order))
        rotated = self.rotated(lambda j: self.take_permuted(rows, j))
        return total, self.product(rotated, x.dtype)


class QuantizedExit(RotatedTokens):
    """Rotation, rounding and one product."""

    def __init__(self, linear: nn.Module, wide_from: int) -> None:
        super().__init__([linear])
        self.wide = self.weight.shape[1] >= wide_from

    def forward(self, rows: Tensor) -> Tensor:
        """(tokens, in) → (tokens, out)."""
        rotated = self.rotated(lambda j: self.take(rows, j))
        if self.wide:
            # Kept with the blocks last: read in another order, it is not computed where it is used.
            blocks = rotated.view(len(rows), -1, self.block)
            rotated = _in_memory(blocks.mT.contiguous()).mT.flatten(-2)
        return self.product(rotated, rows.dtype)


def _in_memory(rows: Tensor) -> Tensor:
    """The same rows, which a compiler then computes once and not for every channel of a block."""
    return rows.as_strided(rows.shape, rows.stride())


def _quantized(linear: nn.Module) -> DuQuantLinear:
    if not isinstance(linear, DuQuantLinear):
        raise EvaluationError(f"a {type(linear).__name__} cannot be merged: it is not quantized")
    if len(linear.after) or linear.bias is not None:
        raise EvaluationError("a layer with rotated outputs or a bias cannot be merged")
    return linear


def _transform(layer: DuQuantLinear) -> tuple[Tensor, Tensor, int]:
    """Order, shared rotation matrix and activation bits of a layer's input stages."""
    stages = list(layer.before)
    order = torch.arange(layer.in_features, device=layer.weight.device)
    if isinstance(stages[0], Reorder):
        order = cast(Tensor, stages.pop(0).order)
    matrix = torch.ones(1, 1, device=layer.weight.device)
    if isinstance(stages[0], BatchedRotation):
        matrices = cast(Tensor, stages.pop(0).matrices)
        if len(matrices) > 1:
            raise EvaluationError("layers with a rotation for each block cannot be merged")
        matrix = matrices[0]
    if len(stages) != 1 or not isinstance(stages[0], RoundTokens):
        raise EvaluationError("only layers with per-token activation scales can be merged")
    return order, matrix, stages[0].bits
