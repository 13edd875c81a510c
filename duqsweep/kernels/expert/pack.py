"""The weights of all layers of the expert as `cuda/expert_loop.cu` reads them."""

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

RANKS = 8  # programs of a cluster


@dataclass(frozen=True)
class Packed:
    """Each has the layers as its first axis."""

    qkv: Tensor  # (layers, programs, …) uint8: fragments
    o: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_scales: Tensor  # (layers, outputs) float32, in the order of the fragments' outputs
    o_scales: Tensor
    gate_up_scales: Tensor
    down_scales: Tensor
    orders: Tensor  # (layers, 4, width) int16: of qkv and gate_up from where, of o to where


def pack(shape: ExpertShape, layers: Sequence[LayerWeights], programs: int) -> Packed:
    """Reorder the weights for that many programs.

    Args:
        shape: Sizes.
        layers: With integer weights, one scale a row.
        programs: Of the grid; a multiple of `RANKS`.

    Raises:
        EvaluationError: A layer is not quantized.
    """
    packed = [_pack_layer(shape, layer, programs) for layer in layers]
    return Packed(
        **{
            field.name: torch.stack([getattr(layer, field.name) for layer in packed])
            for field in fields(Packed)
        }
    )


def _pack_layer(shape: ExpertShape, layer: LayerWeights, programs: int) -> Packed:
    if not all(weight.is_integer for weight in layer.products()):
        raise EvaluationError("the loop's kernel multiplies integers, got a layer of other weights")
    qkv, o, gate_up, down = layer.products()
    device = qkv.values.device
    orders = [_order(qkv), _order(gate_up), _order(o).argsort()]
    halves = torch.arange(2 * shape.hidden, device=device).view(2, -1)
    # Channels in the order in which `down` wants them, each gate beside its up.
    gate_up = take_rows(gate_up, halves[:, _order(down)].T.flatten())
    rotary = Rotary(shape.head_dim, 0).interleaved(qkv.out_features)
    qkv = take_rows(qkv, rotary.to(device))
    return Packed(
        qkv=_spread(fragments(qkv.values), programs, apart=True).reshape(programs, -1),
        o=_sliced(o, programs),
        gate_up=_spread(fragments(gate_up.values), programs, apart=False).reshape(programs, -1),
        down=_sliced(down, programs),
        qkv_scales=_spread(_scales(qkv).view(-1, TILE), programs, apart=True).flatten(),
        o_scales=_scales(o),
        gate_up_scales=_spread(_scales(gate_up).view(-1, TILE), programs, apart=False).flatten(),
        down_scales=_scales(down),
        orders=torch.cat(orders).to(torch.int16).view(-1, shape.width),
    )


def _spread(tiles: Tensor, programs: int, apart: bool) -> Tensor:
    """(tiles, …) → (programs, tiles of each, …), zeros past the end.

    apart: A program's tiles lie a whole grid apart, so that the first programs have one more;
    otherwise they lie side by side.
    """
    each = -(-len(tiles) // programs)
    padded = torch.cat((tiles, tiles.new_zeros(each * programs - len(tiles), *tiles.shape[1:])))
    if apart:
        return padded.view(each, programs, *tiles.shape[1:]).transpose(0, 1)
    return padded.view(programs, each, *tiles.shape[1:])


def _sliced(weight: ProjectionWeights, programs: int) -> Tensor:
    """(programs, …): of a cluster its tiles, of each rank its slice of channels."""
    tiles = _spread(fragments(weight.values), programs // RANKS, apart=False)
    split = tiles.reshape(*tiles.shape[:2], RANKS, -1)
    return split.transpose(1, 2).reshape(programs, -1)


def _scales(weight: ProjectionWeights) -> Tensor:
    unit = 1 / 16 if weight.packed else 1.0  # int4 codes are multiplied as 16 times what they are
    return weight.scales_or_values[:, 0] * unit


def _order(weight: ProjectionWeights) -> Tensor:
    """(in,): where each reordered channel comes from."""
    if weight.permutation is None:
        return torch.arange(weight.in_features, device=weight.values.device)
    return weight.permutation.long()
