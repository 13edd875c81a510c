"""Integer products of a compiled prefix: norm, rounding and product, in two kernels each.

What is folded is exact: a last layer's permutation of its inputs is one of the outputs before it,
and hidden channels that are added to fill cache lines are zero.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from duqsweep.kernels.epilogue import Epilogue, EpilogueKind
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.projection_weights import (
    ProjectionWeights,
    pad_inputs,
    pad_outputs,
    take_rows,
)
from duqsweep.kernels.rotary import Rotary, Table

FULL_LINE = 128  # bytes of the GPU's cache lines; SigLIP's 4304 hidden channels become 4352


def integer_norm(norm: Norm, weights: ProjectionWeights, rotary: Rotary | None) -> nn.Module:
    """X → the products of its norm; see `prefix_products.norm_linear`."""
    if rotary is None:
        return IntegerProduct(weights, norm)
    pairs = rotary.interleaved(weights.out_features).to(weights.values.device)
    return IntegerProduct(take_rows(weights, pairs), norm, "rotary", rotary)


def integer_linear_residual(weights: ProjectionWeights) -> nn.Module:
    """(rows, x) → x plus the product of rows."""
    return IntegerProduct(weights)


def integer_mlp(
    norm: Norm, first: ProjectionWeights, last: ProjectionWeights, gated: bool
) -> nn.Module:
    """X → x plus the MLP of its norm, with the activation behind the first product."""
    hidden = torch.arange(last.in_features, device=last.values.device)
    if last.permutation is not None:
        hidden = last.permutation
    # Outputs 2i and 2i + 1 are a gate and what it gates.
    products = 2 if gated else 1
    rows = [hidden + i * last.in_features for i in range(products)]
    first = take_rows(first, torch.stack(rows, dim=1).flatten())
    last = replace(last, permutation=None)
    if last.groups == 1:
        more = -last.in_features % FULL_LINE
        first, last = pad_outputs(first, products * more), pad_inputs(last, more)
    return IntegerMlp(
        IntegerProduct(first, norm, "gated" if gated else "gelu"), IntegerProduct(last)
    )


class IntegerProduct(nn.Module):
    """Norm, rounding, product and what follows it, in two kernels."""

    values: Tensor
    scales: Tensor
    bias: Tensor | None
    permutation: Tensor | None
    norm_weight: Tensor | None
    norm_bias: Tensor | None

    def __init__(
        self,
        weights: ProjectionWeights,
        norm: Norm | None = None,
        kind: EpilogueKind = "nothing",
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__()
        # Imported here: an installation without a GPU has no Triton.
        from duqsweep.kernels.products import integer_linear

        self.multiply = integer_linear
        self.block, self.act_bits = weights.block, weights.act_bits
        self.kind, self.rotary = kind, rotary
        for name in ("values", "scales", "bias", "permutation"):
            self.register_buffer(name, getattr(weights, name))
        parts: dict[str, Tensor | None] = dict.fromkeys(("weight", "bias"))
        if norm is not None:
            parts = vars(norm)
        for name, part in parts.items():
            if part is not None and weights.permutation is not None:
                part = part[weights.permutation]
            self.register_buffer(f"norm_{name}", part)

    def forward(
        self, rows: Tensor, residual: Tensor | None = None, table: Table | None = None
    ) -> Tensor:
        """(tokens, in) → (tokens, out), added to (tokens, out) if given."""
        weights = ProjectionWeights(
            self.values, self.scales, self.bias, self.permutation, self.block, self.act_bits
        )
        norm = None if self.norm_weight is None else Norm(self.norm_weight, self.norm_bias)
        epilogue = Epilogue(self.kind, residual, self.rotary, table)
        return self.multiply(rows, weights, norm, epilogue)


class IntegerMlp(nn.Module):
    """Two products and the residual."""

    def __init__(self, first: IntegerProduct, last: IntegerProduct) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, width) → the same."""
        added: Tensor = self.last(self.first(x), x)
        return added
