"""The weights of a linear layer in one form for plain, simulated and integer layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.e4m3 import LARGEST_E4M3
from duqsweep.kernels.norms import Norm
from duqsweep.spec import FULL_PRECISION

# How a product is computed. "plain": floating point. "simulated": floating point, on values rounded
# to those of integers times a scale (kernel `fake`). "integer": integers. "e4m3": numbers of e4m3.
Numerics = Literal["plain", "simulated", "integer", "e4m3"]


@dataclass(frozen=True)
class ProjectionWeights:
    """The input x is permuted, rotated in blocks and quantized per token, then multiplied.

    An unquantized layer has only `values` and possibly a bias, and leaves x as it is.

    Raises:
        EvaluationError: The fields contradict each other; the message says how.
    """

    # (out, in) float, int8 or float8_e4m3fn; (out, in / 2) uint8: two int4 codes per byte
    values: Tensor
    scales: Tensor | None = None  # (out, groups) float32; only for values that are codes
    bias: Tensor | None = None  # (out,)
    permutation: Tensor | None = None  # (in,): the input channel of each permuted position
    block: int = 1  # channels per rotation block; 1: no rotation
    act_bits: int = FULL_PRECISION  # bits of x, with one scale per token
    rotation: Tensor | None = None  # (block, block); None: Walsh-Hadamard / sqrt(block)

    def __post_init__(self) -> None:
        if (self.is_integer or self.is_e4m3) != (self.scales is not None):
            raise EvaluationError(
                "integer and e4m3 weights must have scales and other ones none, got "
                f"{self.values.dtype} {'without' if self.scales is None else 'with'} scales"
            )
        if self.in_features % self.groups or self.in_features % self.block:
            raise EvaluationError(
                f"{self.groups} scale groups and blocks of {self.block} must divide "
                f"the input width {self.in_features}"
            )
        if self.packed and self.groups > 1 and self.groups % 2:
            raise EvaluationError(
                "two int4 codes per byte need an even number of scale groups per row, got "
                f"{self.groups}"
            )

    @property
    def is_integer(self) -> bool:
        """Whether the product multiplies integers."""
        return not self.values.is_floating_point()

    @property
    def is_e4m3(self) -> bool:
        """Whether the product multiplies numbers of e4m3."""
        return self.values.dtype == torch.float8_e4m3fn

    @property
    def numerics(self) -> Numerics:
        """How the product is computed."""
        if self.is_integer:
            return "integer"
        if self.is_e4m3:
            return "e4m3"
        return "plain" if self.act_bits == FULL_PRECISION else "simulated"

    @property
    def packed(self) -> bool:
        """Whether each byte holds two int4 codes."""
        return self.values.dtype == torch.uint8

    @property
    def unpacked(self) -> Tensor:
        """The values, one element each: (out, in)."""
        return unpack_int4(self.values) if self.packed else self.values

    @property
    def in_features(self) -> int:
        """Input channels."""
        return self.values.shape[1] * (2 if self.packed else 1)

    @property
    def out_features(self) -> int:
        """Output channels."""
        return self.values.shape[0]

    @property
    def groups(self) -> int:
        """Scales per row."""
        return 1 if self.scales is None else self.scales.shape[1]

    @property
    def stored_bits(self) -> int:
        """Bits of a stored weight that is a code: 4 or 8; 16 for floating point of any width."""
        return (4 if self.packed else 8) if self.is_integer or self.is_e4m3 else FULL_PRECISION

    @property
    def format(self) -> str:
        """The format in the names of counted launches: "w4a8", "w8a8", "e4m3" or a dtype."""
        if self.is_integer:
            return f"w{self.stored_bits}a8"
        if self.is_e4m3:
            return "e4m3"
        return str(self.values.dtype).removeprefix("torch.")

    @property
    def act_qmax(self) -> float:
        """The largest code of x; 1 if x is not quantized."""
        if self.is_e4m3:
            return LARGEST_E4M3
        return 1.0 if self.act_bits == FULL_PRECISION else float(largest_code(self.act_bits))

    @property
    def scales_or_values(self) -> Tensor:
        """The scales; if there are none, a placeholder tensor, which kernels do not read."""
        return self.values if self.scales is None else self.scales

    def tensors(self) -> list[Tensor]:
        """All tensors that are not None."""
        parts = (self.values, self.scales, self.bias, self.permutation, self.rotation)
        return [part for part in parts if part is not None]


def largest_code(bits: int) -> int:
    """The largest signed integer of `bits` bits; the smallest is one further from zero."""
    return (1 << (bits - 1)) - 1


def pack_int4(codes: Tensor) -> Tensor:
    """(out, in) int8 codes from -8 to 7 → (out, in / 2) uint8.

    Byte j of a row holds channel j in its low half and channel j + in / 2 in its high half, both
    in two's complement. So a product is the sum of two products, each over half of the channels.
    """
    low, high = codes.to(torch.uint8).chunk(2, dim=1)
    return (low & 15) | (high << 4)


def unpack_int4(packed: Tensor) -> Tensor:
    """The inverse of `pack_int4`: (out, in / 2) uint8 → (out, in) int8."""
    signed = packed.view(torch.int8)
    return torch.cat(((signed << 4) >> 4, signed >> 4), dim=1)


def concat_reason(parts: Sequence[ProjectionWeights]) -> str | None:
    """Why layers with the same input cannot be merged into one product; None: they can."""
    first, *others = parts
    for other in others:
        if first.numerics != other.numerics:
            return "some are quantized and some are not"
        if (first.values.dtype, first.groups) != (other.values.dtype, other.groups):
            return "they store their weights in different formats"
        if (first.bias is None) != (other.bias is None):
            return "some have a bias and some have none"
        if (first.block, first.act_bits) != (other.block, other.act_bits) or not (
            _same(first.permutation, other.permutation) and _same(first.rotation, other.rotation)
        ):
            return "they transform their input in different ways"
    return None


def concat(parts: Sequence[ProjectionWeights]) -> ProjectionWeights:
    """Merge layers with the same input into one: their outputs are concatenated.

    The tensors of `parts` are not changed. If they are adjacent in one allocation and fill it, the
    result is a view of it; otherwise it is a new tensor.

    Raises:
        EvaluationError: There is a `concat_reason`.
    """
    reason = concat_reason(parts)
    if reason is not None:
        raise EvaluationError(f"layers with the same input cannot be merged: {reason}")
    if len(parts) == 1:
        return parts[0]
    scales = [part.scales for part in parts if part.scales is not None]
    biases = [part.bias for part in parts if part.bias is not None]
    return replace(
        parts[0],
        values=_joined([part.values for part in parts]),
        scales=_joined(scales) if scales else None,
        bias=_joined(biases) if biases else None,
    )


def take_rows(weights: ProjectionWeights, rows: Tensor) -> ProjectionWeights:
    """The layer with only the outputs `rows`, in that order."""
    scales, bias = (None if part is None else part[rows] for part in (weights.scales, weights.bias))
    # As integers where they are e4m3, which torch does not index on every device.
    stored = weights.values.view(torch.uint8) if weights.is_e4m3 else weights.values
    values = stored[rows].view(weights.values.dtype)
    return replace(weights, values=values, scales=scales, bias=bias)


def permuted(norm: Norm, weights: ProjectionWeights) -> Norm:
    """The norm with its channels in the order of the weights' permuted input."""
    if weights.permutation is None:
        return norm
    bias = None if norm.bias is None else norm.bias[weights.permutation]
    return Norm(norm.weight[weights.permutation], bias)


def pad_outputs(weights: ProjectionWeights, more: int) -> ProjectionWeights:
    """The layer with `more` additional outputs, which are zero."""
    if more == 0:
        return weights
    bias = None if weights.bias is None else F.pad(weights.bias, (0, more))
    scales = None if weights.scales is None else F.pad(weights.scales, (0, 0, 0, more))
    return replace(weights, values=F.pad(weights.values, (0, 0, 0, more)), scales=scales, bias=bias)


def pad_inputs(weights: ProjectionWeights, more: int) -> ProjectionWeights:
    """The layer with `more` additional inputs of weight zero.

    It must have one scale per row and no permutation.
    """
    if more == 0:
        return weights
    if not weights.packed:
        return replace(weights, values=F.pad(weights.values, (0, more)))
    return replace(weights, values=pack_int4(F.pad(weights.unpacked, (0, more))))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    storage = first.untyped_storage()
    place = 0
    for tensor in tensors:
        follows = tensor.untyped_storage().data_ptr() == storage.data_ptr()
        if not follows or not tensor.is_contiguous() or tensor.storage_offset() != place:
            return torch.cat(list(tensors))
        place += tensor.numel()
    if place * first.element_size() != storage.nbytes():
        return torch.cat(list(tensors))
    return first.as_strided((sum(map(len, tensors)), *first.shape[1:]), first.stride(), 0)


def _same(first: Tensor | None, other: Tensor | None) -> bool:
    if first is None or other is None:
        return first is other
    return first.shape == other.shape and torch.equal(first, other)
