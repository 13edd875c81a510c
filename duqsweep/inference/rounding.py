"""What happens to tokens in front of a merged product: in plain torch, on a GPU in one kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duqsweep.errors import EvaluationError
from duqsweep.kernels.norms import NORM_EPS
from duqsweep.kernels.projection_weights import ProjectionWeights, largest_code
from duqsweep.quant.quantizer import quantize_tokens
from duqsweep.quant.rotation import rotate_blocks

BLOCKS = (1, 16, 32, 64, 128)  # of the GPU kernel; 1: no rotation


class Rounding(nn.Module, ABC):
    """Permutation, block rotation and rounding of tokens, as simulated layers read them."""

    permutation: Tensor  # (width,) where each permuted channel comes from
    rotation: Tensor  # (block, block), of every block; (1, 1) where there is none

    def __init__(self, weights: ProjectionWeights) -> None:
        super().__init__()
        self.bits = weights.act_bits
        permutation, rotation = weights.permutation, weights.rotation
        if permutation is None:
            permutation = torch.arange(weights.in_features, device=weights.values.device)
        if rotation is None:
            rotation = weights.values.new_ones(1, 1)
        self.register_buffer("permutation", permutation)
        self.register_buffer("rotation", rotation)

    @abstractmethod
    def enter(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The stream x + update * gate, (tokens, width), and its rounded adaptive norm."""

    @abstractmethod
    def leave(self, rows: Tensor) -> Tensor:
        """(tokens, width) → the same, rounded."""

    @abstractmethod
    def leave_gated(self, gate_up: Tensor) -> Tensor:
        """(tokens, 2 * width) → (tokens, width): tanh-GELU of the gate times up, rounded."""


class TorchRounding(Rounding):
    """Stage after stage, as the layers of kernel `fake` do it."""

    def enter(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Rounding`."""
        stream = torch.addcmul(x, update, gate)
        normed = F.rms_norm(stream.float(), stream.shape[-1:], eps=NORM_EPS)
        return stream, self.leave(torch.addcmul(shift, normed, factor).to(x.dtype))

    def leave(self, rows: Tensor) -> Tensor:
        """See `Rounding`."""
        rotated = rotate_blocks(rows.index_select(1, self.permutation), self.rotation[None])
        return quantize_tokens(rotated, self.bits)

    def leave_gated(self, gate_up: Tensor) -> Tensor:
        """See `Rounding`."""
        gate, up = gate_up.chunk(2, dim=-1)
        return self.leave(F.gelu(gate, approximate="tanh") * up)


class KernelRounding(Rounding):
    """One kernel per call; between the stages values stay in float32."""

    def __init__(self, weights: ProjectionWeights) -> None:
        """Prepare the kernel's arguments.

        Raises:
            EvaluationError: There is a `rounding_reason`.
        """
        super().__init__(weights)
        # Imported here: an installation without a GPU has no Triton.
        import duqsweep.kernels.expert.fake_quant  # noqa: F401

        reason = kernel_reason(weights)
        if reason is not None:
            raise EvaluationError(reason)
        self.top = largest_code(weights.act_bits)
        self.permutation = self.permutation.to(torch.int16)
        self.rotation = self.rotation.contiguous()

    def enter(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Rounding`."""
        made = torch.ops.duqsweep.enter(
            x, update, gate, factor, shift, self.permutation, self.rotation, self.top
        )
        return cast(tuple[Tensor, Tensor], made)

    def leave(self, rows: Tensor) -> Tensor:
        """See `Rounding`."""
        return cast(
            Tensor, torch.ops.duqsweep.leave(rows, self.permutation, self.rotation, self.top, False)
        )

    def leave_gated(self, gate_up: Tensor) -> Tensor:
        """See `Rounding`."""
        return cast(
            Tensor,
            torch.ops.duqsweep.leave(gate_up, self.permutation, self.rotation, self.top, True),
        )


def rounding_on(weights: ProjectionWeights) -> Rounding:
    """The form for the device on which the weights lie."""
    return (KernelRounding if weights.values.is_cuda else TorchRounding)(weights)


def rounding_reason(weights: ProjectionWeights) -> str | None:
    """Why `rounding_on` cannot serve these weights; None: it can."""
    return kernel_reason(weights) if weights.values.is_cuda else None


def kernel_reason(weights: ProjectionWeights) -> str | None:
    """Why there is no GPU kernel for the rounding in front of these weights; None: there is."""
    width, block = weights.in_features, weights.block
    if not width & (width - 1) and width <= torch.iinfo(torch.int16).max and block in BLOCKS:
        return None
    return (
        f"on a GPU layers of width {width} and block {block} cannot be merged: the width must be a "
        f"power of two up to 16384 and the block one of {BLOCKS}"
    )
