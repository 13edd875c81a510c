"""The weights of an expert layer as its kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.codes import IntegerWeight, largest_code, merge

# (out, in) in the policy's dtype where a layer is not quantized.
Weight = Tensor | IntegerWeight


@dataclass(frozen=True)
class LayerWeights:
    """One layer's products; those that read the same input are one."""

    qkv: Weight
    o: Weight
    gate_up: Weight
    down: Weight


def layer_weights(
    attention: Sequence[Weight], o: Weight, gate: Weight, up: Weight, down: Weight
) -> LayerWeights:
    """Merge a layer's weights.

    Args:
        attention: Of q, k and v.
        o: Of the attention's output.
        gate: Of the MLP's gate.
        up: Of the MLP's other input.
        down: Of the MLP's output.

    Raises:
        EvaluationError: Weights that read the same input transform it in different ways, or one
            has a bias.
    """
    for weight in (*attention, o, gate, up, down):
        if isinstance(weight, IntegerWeight) and weight.bias is not None:
            raise EvaluationError("the expert's linear layers have no bias, got one")
    return LayerWeights(_merged(attention), o, _merged([gate, up]), down)


def name_of(weight: Weight) -> str:
    """The format of a weight and of what it multiplies, as kernels are counted."""
    if isinstance(weight, Tensor):
        return str(weight.dtype).removeprefix("torch.")
    return "w4a8" if weight.packed else "w8a8"


def format_of(weight: Weight) -> int:
    """Bits that a weight is stored in; 16 for any floating point."""
    if isinstance(weight, Tensor):
        return 16
    return 4 if weight.packed else 8


def tensors_of(weight: Weight) -> tuple[Tensor, Tensor]:
    """What it multiplies with, and its scales, where it has any."""
    if isinstance(weight, Tensor):
        return weight, weight
    return weight.codes, weight.scales


def held_by(weight: Weight) -> list[Tensor]:
    """Every tensor of it that the kernels read."""
    if isinstance(weight, Tensor):
        return [weight]
    order = [] if weight.order is None else [weight.order]
    return [weight.codes, weight.scales, *order]


def block_of(weight: Weight) -> int:
    """Channels that a rotation of its input mixes; 1: none."""
    return weight.block if isinstance(weight, IntegerWeight) else 1


def top_of(weight: Weight) -> float:
    """The largest code of its input; 1 where that is not rounded."""
    return float(largest_code(weight.act_bits)) if isinstance(weight, IntegerWeight) else 1.0


def order_of(weight: Weight) -> Tensor | None:
    """(in,) int32: where each channel of its input comes from; None: as they are."""
    return weight.order if isinstance(weight, IntegerWeight) else None


def _merged(weights: Sequence[Weight]) -> Weight:
    integers = [weight for weight in weights if isinstance(weight, IntegerWeight)]
    if not integers:
        return torch.cat([weight for weight in weights if isinstance(weight, Tensor)])
    if len(integers) < len(weights):
        raise EvaluationError(
            "layers that read the same input must all be quantized or none: "
            f"{len(integers)} of {len(weights)} are"
        )
    if not all(weight.packed for weight in integers):
        integers = [replace(weight, codes=weight.unpacked) for weight in integers]
    return merge(integers)
