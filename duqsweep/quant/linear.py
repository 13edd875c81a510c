"""The layer that replaces a linear one: transform and round the input, multiply, rotate back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.quant.packs import Pack
from duqsweep.quant.quantizer import (
    decode_weight,
    quantize_tokens,
    round_to_codes,
    row_slices,
)
from duqsweep.quant.rotation import rotate_blocks
from duqsweep.spec import FULL_PRECISION, Numbers


@dataclass(frozen=True)
class LinearParts:
    """Everything from which a kernel builds a quantized layer."""

    weight_bits: int
    act_bits: int
    pack: Pack
    act_scale: Tensor | None  # (in,) static scale of each transformed channel; None: per token
    bias: Tensor | None  # (out,)
    dtype: torch.dtype  # of the replaced layer
    device: torch.device
    numbers: Numbers = "integer"  # what the codes of weights and activations are


class QuantizedLinear(nn.Module, ABC):
    """A layer that replaces a linear layer."""

    @abstractmethod
    def projection_weights(self) -> ProjectionWeights | None:
        """The layer as a record that shares its tensors; None: a record cannot express it."""


class DuQuantLinear(QuantizedLinear):
    """Fake quantization: rounds to codes times a scale, and multiplies in floating point.

    The constructor decides which stages run; `forward` has no branch. Smoothing and static
    activation scales are folded into the rotation matrices and the weight; the bias is rotated with
    the rows.
    """

    weight: Tensor
    bias: Tensor | None
    permutation: Tensor | None  # these two tensors belong to the stages
    matrices: Tensor | None

    def __init__(
        self, parts: LinearParts, rotation: Callable[[Tensor], nn.Module], mergeable: bool = True
    ) -> None:
        """Choose the stages.

        Args:
            parts: The layer.
            rotation: Builds the module that applies (blocks, block, block) matrices to (n, width).
            mergeable: Whether other code may compute the layer from `projection_weights`.
        """
        super().__init__()
        self.weight_bits = parts.weight_bits
        self.act_bits = parts.act_bits
        self.out_features, self.in_features = parts.pack.weight.shape
        self.register_buffer("weight", _weight(parts))
        self.register_buffer("bias", _bias(parts))
        permutation, matrices, stages = _input_stages(parts, rotation)
        self.before = nn.Sequential(*stages)
        restore = parts.pack.row_rotation
        stages = [] if restore is None else [rotation(restore)]
        self.after = nn.Sequential(*stages).to(parts.device, parts.dtype)
        self.mergeable = mergeable and _one_rotation_per_token(parts)
        self.register_buffer("permutation", permutation, persistent=False)
        self.register_buffer("matrices", matrices, persistent=False)

    def projection_weights(self) -> ProjectionWeights | None:
        """See `QuantizedLinear`; None for settings that the record has no field for.

        These are e4m3, smoothing, static scales, a rotation per block and a row rotation.
        """
        if not self.mergeable:
            return None
        rotation = None if self.matrices is None else self.matrices[0]
        return ProjectionWeights(
            self.weight,
            bias=self.bias,
            permutation=self.permutation,
            block=1 if rotation is None else len(rotation),
            act_bits=self.act_bits,
            rotation=rotation,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Approximate x·Wᵀ + b.

        Args:
            x: (..., in), of the layer's dtype.

        Returns:
            (..., out).
        """
        rows = self.before(x.reshape(-1, self.in_features))
        product: Tensor = self.after(F.linear(rows, self.weight, self.bias))
        return product.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Widths and bits, for `print(policy.module)`."""
        widths = f"{self.in_features} -> {self.out_features}"
        return f"{widths}, W{self.weight_bits}A{self.act_bits}"


class Reorder(nn.Module):
    """Permutes the input channels."""

    order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) → the same shape."""
        return rows.index_select(1, self.order)


class Scale(nn.Module):
    """Multiplies each channel by its own factor."""

    factors: Tensor

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) → the same shape."""
        scaled: Tensor = rows * self.factors
        return scaled


class RoundTokens(nn.Module):
    """Rounds each token with its own scale."""

    def __init__(self, bits: int, numbers: Numbers) -> None:
        super().__init__()
        self.bits, self.numbers = bits, numbers

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) → the same shape."""
        return quantize_tokens(rows, self.bits, self.numbers)


class RoundStatic(nn.Module):
    """Rounds inputs that are already divided by their channel's scale to codes.

    The scales are folded into the columns of the rounded weight, as in the prototype. A product of
    codes cannot do this, because the scales vary along its sum.
    """

    def __init__(self, bits: int, numbers: Numbers) -> None:
        super().__init__()
        self.bits, self.numbers = bits, numbers

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) → codes, in the same dtype."""
        return round_to_codes(rows, self.bits, self.numbers)


def _one_rotation_per_token(parts: LinearParts) -> bool:
    """Whether the input is permuted, rotated with one matrix, and rounded to integers per token."""
    pack = parts.pack
    others = (pack.row_rotation, pack.factors, pack.first_rotation, parts.act_scale)
    one = parts.numbers == "integer" and (pack.rotation is None or len(pack.rotation) == 1)
    return one and parts.act_bits < FULL_PRECISION and all(other is None for other in others)


def _weight(parts: LinearParts) -> Tensor:
    """The dequantized weight, rounded to the layer's dtype once."""
    pack = parts.pack
    weight = torch.empty(pack.weight.shape, dtype=parts.dtype, device=parts.device)
    for rows in row_slices(pack.weight, 1):
        piece = pack.weight[rows].double()
        if pack.scales is not None:
            piece = decode_weight(piece, pack.scales[rows].double())
        if parts.act_scale is not None:
            piece = piece * parts.act_scale.to(piece)
        weight[rows] = piece
    return weight


def _bias(parts: LinearParts) -> Tensor | None:
    bias, row_rotation = parts.bias, parts.pack.row_rotation
    if bias is None:
        return None
    if row_rotation is not None:
        bias = rotate_blocks(bias.double()[None], row_rotation.to(bias.device).double().mT)[0]
    return bias.detach().to(parts.device, parts.dtype)


def _input_stages(
    parts: LinearParts, rotation: Callable[[Tensor], nn.Module]
) -> tuple[Tensor | None, Tensor | None, list[nn.Module]]:
    """Permutation, matrices of the rotation after it, and all stages, which use these tensors."""
    pack = parts.pack
    ones = torch.ones(pack.weight.shape[1], dtype=torch.float64)  # factor of each channel
    before, after = ones, ones
    if pack.factors is not None:
        before = 1.0 / pack.factors.double().cpu()
    if parts.act_scale is not None:
        after = 1.0 / parts.act_scale.double().cpu()
    scaled = pack.factors is not None or parts.act_scale is not None
    permutation = matrices = None
    stages: list[nn.Module] = []
    if pack.first_rotation is not None:
        scales = (before, ones) if pack.factors is not None else None
        stages.append(rotation(_scaled(pack.first_rotation, scales)))
        before, scaled = ones, parts.act_scale is not None
    if pack.order is not None:
        before = before[pack.order.cpu()]
        permutation = pack.order.to(parts.device)
        stages.append(Reorder(permutation))
    if pack.rotation is not None:
        matrices = _scaled(pack.rotation, (before, after) if scaled else None)
        matrices = matrices.to(parts.device).to(parts.dtype)
        stages.append(rotation(matrices))
    elif scaled:
        stages.append(Scale(before * after))
    if parts.act_bits < FULL_PRECISION:
        static = parts.act_scale is not None
        stages.append((RoundStatic if static else RoundTokens)(parts.act_bits, parts.numbers))
    return permutation, matrices, [stage.to(parts.device).to(parts.dtype) for stage in stages]


def _scaled(matrices: Tensor, scales: tuple[Tensor, Tensor] | None) -> Tensor:
    """Rotation matrices with the channels' factors before and after them folded in."""
    matrices = matrices.double().cpu()
    if scales is None:
        return matrices
    before, after = scales
    block = matrices.shape[-1]
    return before.view(-1, block, 1) * matrices * after.view(-1, 1, block)
