"""Fake quantization of tokens before a merged product: in torch, or on a GPU in one kernel."""

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

BLOCKS = (1, 16, 32, 64, 128)  # rotation blocks of the GPU kernel; 1: no rotation


class FakeQuant(nn.Module, ABC):
    """Permutation, block rotation and per-token fake quantization of simulated layers' input."""

    permutation: Tensor  # (width,): the input channel of each permuted position
    rotation: Tensor  # (block, block), for every block; (1, 1): no rotation

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
    def norm_fake_quant(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The stream x + update * gate, (tokens, width), and its fake-quantized adaptive norm."""

    @abstractmethod
    def fake_quant(self, rows: Tensor) -> Tensor:
        """(tokens, width) → the same shape, fake-quantized."""

    @abstractmethod
    def gated_fake_quant(self, gate_up: Tensor) -> Tensor:
        """(tokens, 2 * width) → (tokens, width): tanh-GELU of the gate times up, fake-quantized."""


class TorchFakeQuant(FakeQuant):
    """One stage after the other, like the layers of kernel `fake`."""

    def norm_fake_quant(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `FakeQuant`."""
        stream = torch.addcmul(x, update, gate)
        normed = F.rms_norm(stream.float(), stream.shape[-1:], eps=NORM_EPS)
        return stream, self.fake_quant(torch.addcmul(shift, normed, factor).to(x.dtype))

    def fake_quant(self, rows: Tensor) -> Tensor:
        """See `FakeQuant`."""
        rotated = rotate_blocks(rows.index_select(1, self.permutation), self.rotation[None])
        return quantize_tokens(rotated, self.bits)

    def gated_fake_quant(self, gate_up: Tensor) -> Tensor:
        """See `FakeQuant`."""
        gate, up = gate_up.chunk(2, dim=-1)
        return self.fake_quant(F.gelu(gate, approximate="tanh") * up)


class KernelFakeQuant(FakeQuant):
    """One kernel per call; values stay in float32 between the stages."""

    def __init__(self, weights: ProjectionWeights) -> None:
        """Prepare the kernel's arguments.

        Raises:
            EvaluationError: There is a `fake_quant_reason`.
        """
        super().__init__(weights)
        # Defines the operators. Imported here: an installation without a GPU has no Triton.
        import duqsweep.kernels.expert.fake_quant  # noqa: F401

        reason = kernel_reason(weights)
        if reason is not None:
            raise EvaluationError(reason)
        self.qmax = largest_code(weights.act_bits)
        self.permutation = self.permutation.to(torch.int16)
        self.rotation = self.rotation.contiguous()

    def norm_fake_quant(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `FakeQuant`."""
        made = torch.ops.duqsweep.norm_fake_quant(
            x, update, gate, factor, shift, self.permutation, self.rotation, self.qmax
        )
        return cast(tuple[Tensor, Tensor], made)

    def fake_quant(self, rows: Tensor) -> Tensor:
        """See `FakeQuant`."""
        return self._run(rows, gated=False)

    def gated_fake_quant(self, gate_up: Tensor) -> Tensor:
        """See `FakeQuant`."""
        return self._run(gate_up, gated=True)

    def _run(self, rows: Tensor, gated: bool) -> Tensor:
        made = torch.ops.duqsweep.act_fake_quant(
            rows, self.permutation, self.rotation, self.qmax, gated
        )
        return cast(Tensor, made)


def fake_quant_on(weights: ProjectionWeights) -> FakeQuant:
    """The implementation for the device of the weights."""
    return (KernelFakeQuant if weights.values.is_cuda else TorchFakeQuant)(weights)


def fake_quant_reason(weights: ProjectionWeights) -> str | None:
    """Why `fake_quant_on` does not support these weights; None: it does."""
    return kernel_reason(weights) if weights.values.is_cuda else None


def kernel_reason(weights: ProjectionWeights) -> str | None:
    """Why the GPU kernel cannot quantize the input of these weights; None: it can."""
    width, block = weights.in_features, weights.block
    if not width & (width - 1) and width <= torch.iinfo(torch.int16).max and block in BLOCKS:
        return None
    return (
        f"on a GPU layers of width {width} and block {block} cannot be merged: the width must be a "
        f"power of two up to 16384 and the block one of {BLOCKS}"
    )
