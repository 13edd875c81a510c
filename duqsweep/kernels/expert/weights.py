"""The weights of an expert layer as its kernels read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from duqsweep.errors import EvaluationError
from duqsweep.kernels.projection_weights import ProjectionWeights, concat, concat_reason


@dataclass(frozen=True)
class LayerWeights:
    """One layer's products; those that read the same input are one."""

    qkv: ProjectionWeights
    o: ProjectionWeights
    gate_up: ProjectionWeights
    down: ProjectionWeights

    def products(self) -> Iterator[ProjectionWeights]:
        """All four."""
        yield from (self.qkv, self.o, self.gate_up, self.down)


@dataclass(frozen=True)
class LayerParts:
    """The same, not merged yet."""

    attention: tuple[ProjectionWeights, ...]  # q, k and v
    o: ProjectionWeights
    gate_up: tuple[ProjectionWeights, ...]  # the MLP's gate, and its other input
    down: ProjectionWeights

    def all(self) -> Iterator[ProjectionWeights]:
        """Each by itself."""
        yield from (*self.attention, self.o, *self.gate_up, self.down)


def merge_reason(parts: LayerParts) -> str | None:
    """Why there are no kernels for a layer; None: there are."""
    for part in parts.all():
        if part.numerics == "simulated":
            return "kernels take integer and unquantized layers, and some are simulated"
        if part.bias is not None:
            return "the kernels have no bias, and a layer has one"
    for group in (parts.attention, parts.gate_up):
        reason = concat_reason(_of_one_width(group))
        if reason is not None:
            return f"layers that read the same input cannot be merged: {reason}"
    return None


def merge_layer(parts: LayerParts) -> LayerWeights:
    """Merge the projections that read the same input.

    Raises:
        EvaluationError: There is a `merge_reason`.
    """
    reason = merge_reason(parts)
    if reason is not None:
        raise EvaluationError(reason)
    qkv, gate_up = (concat(_of_one_width(group)) for group in (parts.attention, parts.gate_up))
    return LayerWeights(qkv, parts.o, gate_up, parts.down)


def _of_one_width(group: Sequence[ProjectionWeights]) -> Sequence[ProjectionWeights]:
    """Packed codes beside wider ones are unpacked."""
    integers = all(part.is_integer for part in group)
    if not integers or all(part.packed for part in group):
        return group
    return [replace(part, values=part.unpacked) for part in group]
