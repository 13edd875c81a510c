"""Fold smoothing, permutation and rotations into one layer's weight, in float64, and quantize it.

With S = diag(factors), Q and R block rotations and P the permutation, a layer y = x·Wᵀ becomes
(x·S⁻¹·Q·P·R)·(W·S·Q·P·R)ᵀ, which is equal until a factor is rounded. Only the greedy rotation has
a Q. With a row rotation U, the product is y·Uᵀ, and it is multiplied by U afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.quant.greedy import greedy_rotation
from duqsweep.quant.packs import Pack
from duqsweep.quant.permutation import interleave, zigzag
from duqsweep.quant.quantizer import row_slices, weight_codes, weight_scales
from duqsweep.quant.rotation import block_rotations, rotate_blocks
from duqsweep.quant.select import permutes
from duqsweep.quant.smoothing import smoothing_factors
from duqsweep.spec import FULL_PRECISION, QuantSpec, numbers_of


@dataclass(frozen=True)
class InputTransform:
    """S, Q, P and R of one layer in float64; None is the identity."""

    factors: Tensor | None = None  # (in,), S: factors of the channels, before the permutation
    first_rotation: Tensor | None = None  # (1, block, block), Q
    order: Tensor | None = None  # (in,) int64, P: the input channel of each permuted position
    rotation: Tensor | None = None  # (1 or in / block, block, block), R

    def of_weight(self, weight: Tensor) -> Tensor:
        """W·S·Q·P·R in float64, for a weight (out, in)."""
        folded = weight.double()
        if self.factors is not None:
            folded = folded * self.factors
        return self._mix(folded)

    def of_inputs(self, rows: Tensor) -> Tensor:
        """x·S⁻¹·Q·P·R in float64, for rows (n, in)."""
        rows = rows.double()
        if self.factors is not None:
            rows = rows / self.factors
        return self._mix(rows)

    def _mix(self, rows: Tensor) -> Tensor:
        if self.first_rotation is not None:
            rows = rotate_blocks(rows, self.first_rotation)
        if self.order is not None:
            rows = rows.index_select(1, self.order)
        if self.rotation is not None:
            rows = rotate_blocks(rows, self.rotation)
        return rows


def input_transform(
    weight: Tensor, quant: QuantSpec, act_max: Tensor, samples: Tensor | None = None
) -> InputTransform:
    """The transform of a layer's inputs under the settings `quant`.

    Args:
        weight: (out, in), unquantized.
        quant: The settings.
        act_max: (in,) largest |x| of each input channel, from calibration.
        samples: (n, in) inputs from calibration, for the greedy rotation. Without smoothing it
            depends on nothing else, so layers with the same input share it.

    Raises:
        EvaluationError: The rotation is greedy and there are no samples.
    """
    magnitude = act_max.to(weight.device, torch.float64)
    transform = InputTransform()
    if quant.smoothing > 0:
        factors = smoothing_factors(magnitude, weight, quant.smoothing)
        magnitude = magnitude / factors
        transform = replace(transform, factors=factors)
    if quant.rotation == "greedy":
        if samples is None:
            raise EvaluationError("rotation=greedy needs samples of the layer's inputs")
        return _greedy(transform, weight, quant, samples.to(weight.device))
    if permutes(quant):
        if quant.permutation == "zigzag":
            order = zigzag(magnitude, quant.block_size)
        else:
            order = interleave(transform.of_weight(weight).square().mean(0))
        transform = replace(transform, order=order)
    if quant.rotation == "none":
        return transform
    folded = transform.of_weight(weight) if quant.rotation == "svd" else weight
    rotation = block_rotations(quant.rotation, folded, quant.block_size).to(magnitude)
    return replace(transform, rotation=rotation)


def _greedy(
    transform: InputTransform, weight: Tensor, quant: QuantSpec, samples: Tensor
) -> InputTransform:
    """As in DuQuant: rotation, permutation, rotation; without a permutation, one rotation."""
    block = quant.block_size
    if permutes(quant):
        first = greedy_rotation(transform.of_inputs(samples), block)
        transform = replace(transform, first_rotation=first)
        if quant.permutation == "zigzag":
            order = zigzag(transform.of_inputs(samples).abs().amax(0), block)
        else:
            order = interleave(transform.of_weight(weight).square().mean(0))
        transform = replace(transform, order=order)
    return replace(transform, rotation=greedy_rotation(transform.of_inputs(samples), block))


def build_pack(
    weight: Tensor,
    weight_bits: int,
    quant: QuantSpec,
    act_max: Tensor,
    samples: Tensor | None = None,
) -> Pack:
    """Transform and quantize one weight on its device, in slices of rows to save memory.

    Args:
        weight: (out, in), on any device; it is not changed.
        weight_bits: 2 to 8, or 16: transform without quantizing.
        quant: The settings; their block and group sizes must divide the widths.
        act_max: (in,) largest |x| of each input channel.
        samples: (n, in) inputs, for the greedy rotation.
    """
    transform = input_transform(weight, quant, act_max, samples)
    row_rotation = None
    if quant.row_rotation:
        row_rotation = block_rotations(quant.rotation, weight.T, quant.block_size)
        row_rotation = row_rotation.to(weight.device)
    stored, scales = [], []
    for rows in row_slices(weight, quant.block_size):
        folded = transform.of_weight(weight[rows])
        if row_rotation is not None:
            folded = _rotate_rows(folded, row_rotation, rows.start // quant.block_size)
        if weight_bits == FULL_PRECISION:
            stored.append(folded.float())
            continue
        group, numbers = quant.weight_group_size, numbers_of(quant)
        scale = weight_scales(folded, weight_bits, quant.weight_scale, group, numbers)
        stored.append(weight_codes(folded, scale, weight_bits, numbers))
        scales.append(scale.float())
    return Pack(
        weight=torch.cat(stored),
        scales=torch.cat(scales) if scales else None,
        factors=_single(transform.factors),
        order=transform.order,
        rotation=_single(transform.rotation),
        row_rotation=_single(row_rotation),
        first_rotation=_single(transform.first_rotation),
    )


def _rotate_rows(rows: Tensor, matrices: Tensor, first_block: int) -> Tensor:
    """U·rows. As in the prototype, they are multiplied by U, not by its transpose."""
    if len(matrices) > 1:
        matrices = matrices[first_block : first_block + len(rows) // matrices.shape[-1]]
    return rotate_blocks(rows.T, matrices.mT).T


def _single(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()
