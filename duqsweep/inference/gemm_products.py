"""Quantized products of a compiled prefix, on the warp groups of Hopper."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from duqsweep.kernels.epilogue import Epilogue, EpilogueKind
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.kernels.rotary import Rotary, Table
from duqsweep.kernels.unfinished import Rows, finished


def on_warp_groups(weights: ProjectionWeights, dtype: torch.dtype) -> bool:
    """Whether `GemmProduct` computes this product of rows of a dtype, and is faster."""
    if weights.values.device.type != "cuda":
        return False
    from duqsweep.kernels import gemm  # needs Triton

    return gemm.unsupported_reason(weights, dtype) is None


class GemmProduct(nn.Module):
    """Norm, quantization, product and epilogue; two kernels, three for a split product."""

    values: Tensor
    scales: Tensor
    bias: Tensor | None
    permutation: Tensor | None
    norm_weight: Tensor | None
    norm_bias: Tensor | None

    def __init__(
        self,
        weights: ProjectionWeights,
        norm: Norm | None,
        kind: EpilogueKind = "nothing",
        rotary: Rotary | None = None,
    ) -> None:
        """Reorder the weights.

        Args:
            weights: `on_warp_groups`. Outputs that form a pair in the epilogue are adjacent.
            norm: Its channels are in the order of the permuted input.
            kind: Of the epilogue; "rotary" for integers only.
            rotary: For kind "rotary".
        """
        super().__init__()
        from duqsweep.kernels import gemm

        self.multiply, self.multiply_in_parts = gemm.gemm_linear, gemm.unfinished_linear
        self.kind, self.block, self.bits = str(kind), weights.block, weights.act_bits
        self.rotary, self.is_integer = rotary, weights.is_integer
        weights = gemm.ordered(weights, pairs=kind in ("gated", "rotary"))
        self.register_buffer("values", weights.values)
        self.register_buffer("scales", weights.scales)
        self.register_buffer("bias", weights.bias)
        self.register_buffer("permutation", weights.permutation)
        self.register_buffer("norm_weight", None if norm is None else norm.weight)
        self.register_buffer("norm_bias", None if norm is None else norm.bias)

    def forward(
        self, rows: Rows, residual: Tensor | None = None, table: Table | None = None
    ) -> Tensor:
        """(tokens, in) → (tokens, out), plus the residual (tokens, out) if there is one."""
        if self.rotary is not None or not isinstance(rows, Tensor):
            return finished(self.in_parts(rows, residual, table))
        product: Tensor = self.multiply(
            rows,
            self.values,
            self.scales,
            self.bias,
            self.permutation,
            self.block,
            self.bits,
            self.norm_weight,
            self.norm_bias,
            self.kind,
            residual,
        )
        return product

    def in_parts(
        self, rows: Rows, residual: Tensor | None = None, table: Table | None = None
    ) -> Rows:
        """`forward`, whose result may be in parts; torch.compile cannot trace it."""
        weights = ProjectionWeights(
            self.values, self.scales, self.bias, self.permutation, self.block, self.bits
        )
        norm = None if self.norm_weight is None else Norm(self.norm_weight, self.norm_bias)
        epilogue = Epilogue(cast(EpilogueKind, self.kind), residual, self.rotary, table)
        return self.multiply_in_parts(rows, weights, norm, epilogue)
