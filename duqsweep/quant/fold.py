"""Fold smoothing, permutation and rotations into one layer's weight, in float64, and quantize it.

With S = diag(factors), P the permutation and R the block rotations, a layer y = x·Wᵀ becomes
(x·S⁻¹·P·R)·(W·S·P·R)ᵀ, which is the same until one of the two is rounded. With row rotation U the
outputs are y·Uᵀ, and are multiplied by U afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duqsweep.quant.packs import Pack
from duqsweep.quant.permutation import interleave, zigzag
from duqsweep.quant.quantizer import weight_codes, weight_scales
from duqsweep.quant.rotation import block_rotations, rotate_blocks
from duqsweep.quant.select import permutes
from duqsweep.quant.smoothing import smoothing_factors
from duqsweep.spec import FULL_PRECISION, QuantSpec


@dataclass(frozen=True)
class InputTransform:
    """S, P and R of one layer; None stands for the identity. Tensors are float64."""

    factors: Tensor | None  # (in,) of the channels before they are reordered
    order: Tensor | None  # (in,) int64
    rotation: Tensor | None  # (1 or in / block, block, block)

    def of_weight(self, weight: Tensor) -> Tensor:
        """W·S·P·R in float64, for a weight (out, in)."""
        folded = weight.double()
        if self.factors is not None:
            folded = folded * self.factors
        return self._mix(folded)

    def of_inputs(self, rows: Tensor) -> Tensor:
        """x·S⁻¹·P·R in float64, for rows (n, in)."""
        rows = rows.double()
        if self.factors is not None:
            rows = rows / self.factors
        return self._mix(rows)

    def _mix(self, rows: Tensor) -> Tensor:
        if self.order is not None:
            rows = rows.index_select(1, self.order)
        if self.rotation is not None:
            rows = rotate_blocks(rows, self.rotation)
        return rows


def input_transform(weight: Tensor, quant: QuantSpec, act_max: Tensor) -> InputTransform:
    """The transform that `quant` gives to a layer's inputs.

    Args:
        weight: (out, in), unquantized.
        quant: The settings.
        act_max: (in,) largest |x| of each input channel, from calibration.
    """
    weight = weight.double()
    magnitude = act_max.to(weight)
    factors = order = rotation = None
    if quant.smoothing > 0:
        factors = smoothing_factors(magnitude, weight, quant.smoothing)
        magnitude = magnitude / factors
        weight = weight * factors
    if permutes(quant):
        if quant.permutation == "zigzag":
            order = zigzag(magnitude, quant.block_size)
        else:
            order = interleave(weight.square().mean(0))
        weight = weight.index_select(1, order)
    if quant.rotation != "none":
        rotation = block_rotations(quant.rotation, weight, quant.block_size).to(weight)
    return InputTransform(factors, order, rotation)


def build_pack(weight: Tensor, weight_bits: int, quant: QuantSpec, act_max: Tensor) -> Pack:
    """Transform and quantize one weight.

    Args:
        weight: (out, in), on any device; it is not changed.
        weight_bits: 2 to 8, or 16 to transform only.
        quant: The settings; its blocks and groups divide the widths.
        act_max: (in,) largest |x| of each input channel.
    """
    transform = input_transform(weight, quant, act_max)
    folded = transform.of_weight(weight)
    row_rotation = None
    if quant.row_rotation:
        # As in the prototype, the rows are multiplied by U and not by its transpose.
        row_rotation = block_rotations(quant.rotation, weight.T, quant.block_size).to(folded)
        folded = rotate_blocks(folded.T, row_rotation.mT).T
    if weight_bits == FULL_PRECISION:
        stored, scales = folded, None
    else:
        scales = weight_scales(folded, weight_bits, quant.weight_scale, quant.weight_group_size)
        stored = weight_codes(folded, scales, weight_bits)
    return Pack(
        weight=stored if stored.dtype == torch.int8 else stored.float(),
        scales=_single(scales),
        factors=_single(transform.factors),
        order=transform.order,
        rotation=_single(transform.rotation),
        row_rotation=_single(row_rotation),
    )


def _single(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()
