"""Integer weights as the kernels read them: a record of tensors, and two int4 codes in a byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.errors import EvaluationError

# What is done with a product: nothing; tanh-GELU; of outputs 2i and 2i + 1 tanh-GELU of the first
# times the second; or rotary positions, where outputs 2i and 2i + 1 are a pair, stored apart.
After = Literal["nothing", "gelu", "gated", "rotary"]


@dataclass(frozen=True)
class IntegerWeight:
    """One linear layer in integers: x is reordered, rotated and rounded, then multiplied.

    The rotation is the Walsh-Hadamard matrix of `block` channels over sqrt(block); 1: none.
    """

    codes: Tensor  # (out, in) int8, or (out, in / 2) uint8: two int4 codes a byte, `pack_int4`
    scales: Tensor  # (out, groups) float32
    bias: Tensor | None  # (out,)
    order: Tensor | None  # (in,) int32: where each reordered channel comes from
    block: int
    act_bits: int

    def __post_init__(self) -> None:
        if self.codes.dtype not in (torch.int8, torch.uint8):
            raise EvaluationError(f"codes must be int8 or uint8, got {self.codes.dtype}")
        if self.in_features % self.scales.shape[1] or self.in_features % self.block:
            raise EvaluationError(
                f"{self.scales.shape[1]} scale groups and blocks of {self.block} must divide "
                f"the input width {self.in_features}"
            )

        groups = self.scales.shape[1]
        if self.packed and groups > 1 and groups % 2:
            raise EvaluationError(
                f"two int4 codes a byte need an even number of scale groups a row, got {groups}"
            )

    @property
    def packed(self) -> bool:
        """Whether a byte holds two codes."""
        return self.codes.dtype == torch.uint8

    @property
    def unpacked(self) -> Tensor:
        """The codes, (out, in) int8."""
        return unpack_int4(self.codes) if self.packed else self.codes

    @property
    def in_features(self) -> int:
        """Input channels."""
        return self.codes.shape[1] * (2 if self.packed else 1)

    @property
    def out_features(self) -> int:
        """Output channels."""
        return self.codes.shape[0]


def largest_code(bits: int) -> int:
    """The largest signed integer of `bits` bits; the smallest is one further from zero."""
    return (1 << (bits - 1)) - 1


def pack_int4(codes: Tensor) -> Tensor:
    """(out, in) int8 codes from -8 to 7 → (out, in / 2) uint8.

    Byte j of a row holds channel j in its low half and channel j + in / 2 in its high half, two's
    complement: a product is then two products, over half of the channels each.
    """
    low, high = codes.to(torch.uint8).chunk(2, dim=1)
    return (low & 15) | (high << 4)


def unpack_int4(packed: Tensor) -> Tensor:
    """The codes that `pack_int4` packed: (out, in) int8."""
    signed = packed.view(torch.int8)
    return torch.cat(((signed << 4) >> 4, signed >> 4), dim=1)


def alike(weights: Sequence[IntegerWeight]) -> bool:
    """Whether the layers read their input in the same way and store their codes alike."""
    return all(_same(weights[0], other) for other in weights[1:])


def merge(weights: Sequence[IntegerWeight]) -> IntegerWeight:
    """Layers that read the same input as one, their outputs one after the other.

    Raises:
        EvaluationError: They are not `alike`.
    """
    if not alike(weights):
        raise EvaluationError(
            "layers that read the same input cannot be merged: they transform or store it in "
            "different ways"
        )
    biases = [weight.bias for weight in weights if weight.bias is not None]
    return replace(
        weights[0],
        codes=torch.cat([weight.codes for weight in weights]),
        scales=torch.cat([weight.scales for weight in weights]),
        bias=torch.cat(biases) if biases else None,
    )


def take_rows(weight: IntegerWeight, rows: Tensor) -> IntegerWeight:
    """The layer with only these outputs, in this order."""
    bias = None if weight.bias is None else weight.bias[rows]
    return replace(weight, codes=weight.codes[rows], scales=weight.scales[rows], bias=bias)


def pad_outputs(weight: IntegerWeight, more: int) -> IntegerWeight:
    """The layer with more outputs, which are zero."""
    if more == 0:
        return weight
    bias = None if weight.bias is None else F.pad(weight.bias, (0, more))
    codes, scales = (F.pad(part, (0, 0, 0, more)) for part in (weight.codes, weight.scales))
    return replace(weight, codes=codes, scales=scales, bias=bias)


def pad_inputs(weight: IntegerWeight, more: int) -> IntegerWeight:
    """The layer with more inputs, which count for nothing; it has one scale a row and no order."""
    if more == 0:
        return weight
    if not weight.packed:
        return replace(weight, codes=F.pad(weight.codes, (0, more)))
    return replace(weight, codes=pack_int4(F.pad(weight.unpacked, (0, more))))


def _same(first: IntegerWeight, other: IntegerWeight) -> bool:
    if first.order is None or other.order is None:
        same_order = first.order is other.order
    else:
        same_order = torch.equal(first.order, other.order)
    same_form = first.codes.dtype == other.codes.dtype
    same_groups = first.scales.shape[1] == other.scales.shape[1]
    same_inputs = (first.block, first.act_bits) == (other.block, other.act_bits)
    same_bias = (first.bias is None) == (other.bias is None)
    return same_order and same_form and same_groups and same_inputs and same_bias
