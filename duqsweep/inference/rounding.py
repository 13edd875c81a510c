"""What happens to tokens in front of a merged product: in plain torch, on a GPU in one kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duqsweep.errors import EvaluationError
from duqsweep.kernels.codes import largest_code
from duqsweep.kernels.norms import NORM_EPS
from duqsweep.quant.quantizer import quantize_tokens
from duqsweep.quant.rotation import rotate_blocks

BLOCKS = (1, 16, 32, 64, 128)  # of the GPU kernel; 1: no rotation


@dataclass(frozen=True)
class InputTransform:
    """How layers read their input."""

    order: Tensor  # (width,) where each permuted channel comes from
    matrix: Tensor  # (block, block), the rotation of every block; (1, 1) where there is none
    bits: int  # of the rounded values, one scale a token


class Rounding(nn.Module, ABC):
    """Permutation, block rotation and rounding of tokens."""

    order: Tensor
    matrix: Tensor

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

    def __init__(self, transform: InputTransform) -> None:
        super().__init__()
        self.bits = transform.bits
        self.register_buffer("order", transform.order)
        self.register_buffer("matrix", transform.matrix)

    def enter(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Rounding`."""
        stream = torch.addcmul(x, update, gate)
        normed = F.rms_norm(stream.float(), stream.shape[-1:], eps=NORM_EPS)
        return stream, self.leave(torch.addcmul(shift, normed, factor).to(x.dtype))

    def leave(self, rows: Tensor) -> Tensor:
        """See `Rounding`."""
        rotated = rotate_blocks(rows.index_select(1, self.order), self.matrix[None])
        return quantize_tokens(rotated, self.bits)

    def leave_gated(self, gate_up: Tensor) -> Tensor:
        """See `Rounding`."""
        gate, up = gate_up.chunk(2, dim=-1)
        return self.leave(F.gelu(gate, approximate="tanh") * up)


class KernelRounding(Rounding):
    """One kernel a call; between the stages values stay in float32."""

    def __init__(self, transform: InputTransform) -> None:
        """Check that there is a kernel.

        Raises:
            EvaluationError: The width is not a power of two, or the block is not among `BLOCKS`.
        """
        super().__init__()
        # Imported here: an installation without a GPU has no Triton.
        import duqsweep.kernels.rounded_rows  # noqa: F401

        width, block = len(transform.order), len(transform.matrix)
        if width & (width - 1) or width > torch.iinfo(torch.int16).max or block not in BLOCKS:
            raise EvaluationError(
                f"on a GPU layers of width {width} and block {block} cannot be merged: the width "
                f"must be a power of two up to 16384 and the block one of {BLOCKS}"
            )
        self.top = largest_code(transform.bits)
        self.register_buffer("order", transform.order.to(torch.int16))
        self.register_buffer("matrix", transform.matrix.contiguous())

    def enter(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Rounding`."""
        made = torch.ops.duqsweep.enter(
            x, update, gate, factor, shift, self.order, self.matrix, self.top
        )
        return cast(tuple[Tensor, Tensor], made)

    def leave(self, rows: Tensor) -> Tensor:
        """See `Rounding`."""
        return cast(
            Tensor, torch.ops.duqsweep.leave(rows, self.order, self.matrix, self.top, False)
        )

    def leave_gated(self, gate_up: Tensor) -> Tensor:
        """See `Rounding`."""
        return cast(
            Tensor, torch.ops.duqsweep.leave(gate_up, self.order, self.matrix, self.top, True)
        )


def rounding_on(transform: InputTransform) -> Rounding:
    """The form for the device on which the transform's tensors lie."""
    return (KernelRounding if transform.order.is_cuda else TorchRounding)(transform)
