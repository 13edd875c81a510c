"""The weights of an expert layer, merged as its kernels read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from duqsweep.errors import EvaluationError
from duqsweep.kernels.projection_weights import ProjectionWeights, concat, concat_reason


@dataclass(frozen=True)
class LayerWeights:
    """One layer's four products; projections that read the same input are merged."""

    qkv: ProjectionWeights
    o: ProjectionWeights
    gate_up: ProjectionWeights
    down: ProjectionWeights

    def products(self) -> Iterator[ProjectionWeights]:
        """The four products in the order in which they are computed."""
        yield from (self.qkv, self.o, self.gate_up, self.down)


@dataclass(frozen=True)
class LayerProjections:
    """One layer's seven projections, before they are merged."""

    qkv: tuple[ProjectionWeights, ...]
    o: ProjectionWeights
    gate_up: tuple[ProjectionWeights, ...]
    down: ProjectionWeights

    def all(self) -> Iterator[ProjectionWeights]:
        """All seven."""
        yield from (*self.qkv, self.o, *self.gate_up, self.down)


def merge_reason(projections: LayerProjections) -> str | None:
    """Why the kernels cannot run a layer; None: they can."""
    for part in projections.all():
        if part.numerics == "simulated":
            return "the kernels multiply what is stored, and some layers are simulated"
        if part.bias is not None:
            return "the kernels add no bias, and a layer has one"
    for group in (projections.qkv, projections.gate_up):
        reason = concat_reason(_of_one_format(group))
        if reason is not None:
            return f"layers with the same input cannot be merged: {reason}"
    return None


def merge_layer(projections: LayerProjections) -> LayerWeights:
    """Merge the projections that read the same input.

    Raises:
        EvaluationError: There is a `merge_reason`.
    """
    reason = merge_reason(projections)
    if reason is not None:
        raise EvaluationError(reason)
    qkv, gate_up = (
        concat(_of_one_format(group)) for group in (projections.qkv, projections.gate_up)
    )
    return LayerWeights(qkv, projections.o, gate_up, projections.down)


def _of_one_format(group: Sequence[ProjectionWeights]) -> Sequence[ProjectionWeights]:
    """Unpack int4 weights if other weights of the group are int8."""
    integers = all(part.is_integer for part in group)
    if not integers or all(part.packed for part in group):
        return group
    return [replace(part, values=part.unpacked) for part in group]
