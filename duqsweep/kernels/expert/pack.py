"""Repacks the weights of all layers of the expert for `cuda/expert_loop.cu`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.expert.fragments import TILE, fragments
from duqsweep.kernels.expert.tiling import ExpertShape
from duqsweep.kernels.expert.weights import LayerWeights
from duqsweep.kernels.projection_weights import ProjectionWeights, take_rows
from duqsweep.kernels.rotary import Rotary

RANKS = 8  # CTAs of a cluster


@dataclass(frozen=True)
class PackedExpert:
    """The weights of all layers in the kernel's layout; the first axis is the layer."""

    qkv: Tensor  # (layers, CTAs / parts, …) uint8: fragments; gate_up also, o and down by CTA
    o: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_scales: Tensor  # (layers, outputs) float32, in fragment order
    o_scales: Tensor
    gate_up_scales: Tensor
    down_scales: Tensor
    # (layers, 4, width) int16: permutations of qkv and gate_up, and the inverse of o's (2 rows).
    permutations: Tensor


def pack(
    shape: ExpertShape, layers: Sequence[LayerWeights], ctas: int, parts: int = 1
) -> PackedExpert:
    """Repack the weights for a grid of that many CTAs.

    Args:
        shape: Sizes of the expert.
        layers: Its layers, quantized, with one scale per row.
        ctas: CTAs of the grid; a multiple of `RANKS`.
        parts: Parts of the tokens, for each of which CTAs compute all outputs of qkv and gate_up.

    Raises:
        EvaluationError: A layer is not quantized.
    """
    packed = [_pack_layer(shape, layer, ctas, ctas // parts) for layer in layers]
    return PackedExpert(
        **{
            field.name: torch.stack([getattr(layer, field.name) for layer in packed])
            for field in fields(PackedExpert)
        }
    )


def _pack_layer(shape: ExpertShape, layer: LayerWeights, ctas: int, sets: int) -> PackedExpert:
    if not all(weight.is_integer or weight.is_e4m3 for weight in layer.products()):
        raise EvaluationError(
            "the persistent kernel multiplies integers or e4m3, got a layer of other weights"
        )
    qkv, o, gate_up, down = layer.products()
    device = qkv.values.device
    permutations = [_permutation(qkv), _permutation(gate_up), _permutation(o).argsort()]
    halves = torch.arange(2 * shape.hidden, device=device).view(2, -1)
    # Hidden channels in the order of `down`'s permuted input; each gate row precedes its up row.
    gate_up = take_rows(gate_up, halves[:, _permutation(down)].T.flatten())
    rotary = Rotary(shape.head_dim, 0).interleaved(qkv.out_features)
    qkv = take_rows(qkv, rotary.to(device))
    return PackedExpert(
        qkv=_spread(fragments(qkv.values), sets, apart=True).reshape(sets, -1),
        o=_sliced(o, ctas),
        gate_up=_spread(fragments(gate_up.values), sets, apart=False).reshape(sets, -1),
        down=_sliced(down, ctas),
        qkv_scales=_spread(_scales(qkv).view(-1, TILE), sets, apart=True).flatten(),
        o_scales=_scales(o),
        gate_up_scales=_spread(_scales(gate_up).view(-1, TILE), sets, apart=False).flatten(),
        down_scales=_scales(down),
        permutations=torch.cat(permutations).to(torch.int16).view(-1, shape.width),
    )


def _spread(tiles: Tensor, ctas: int, apart: bool) -> Tensor:
    """(tiles, …) → (ctas, tiles per CTA, …), padded with zeros.

    apart: CTA i has tiles i, i + ctas, i + 2 * ctas, …; otherwise each CTA has consecutive tiles.
    """
    each = -(-len(tiles) // ctas)
    padded = torch.cat((tiles, tiles.new_zeros(each * ctas - len(tiles), *tiles.shape[1:])))
    if apart:
        return padded.view(each, ctas, *tiles.shape[1:]).transpose(0, 1)
    return padded.view(ctas, each, *tiles.shape[1:])


def _sliced(weight: ProjectionWeights, ctas: int) -> Tensor:
    """(ctas, …): tiles are divided among clusters, their input channels among the ranks."""
    tiles = _spread(fragments(weight.values), ctas // RANKS, apart=False)
    split = tiles.reshape(*tiles.shape[:2], RANKS, -1)
    return split.transpose(1, 2).reshape(ctas, -1)


def _scales(weight: ProjectionWeights) -> Tensor:
    unit = (
        1 / 16 if weight.packed else 1.0
    )  # the kernel multiplies int4 weights as 16 times their value
    return weight.scales_or_values[:, 0] * unit


def _permutation(weight: ProjectionWeights) -> Tensor:
    """(in,): the input channel that comes to each permuted position."""
    if weight.permutation is None:
        return torch.arange(weight.in_features, device=weight.values.device)
    return weight.permutation.long()
