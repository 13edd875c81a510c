"""Integer products of a fused prefix: norm, rounding and product of layers that `freeze` replaced.

What is folded is exact: a last layer's permutation of its inputs is one of the outputs before it,
and hidden channels that are added to fill cache lines are zero.
Layers that cannot be merged (one is not quantized, or they read their input in different ways) are
called one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.kernels.codes import (
    After,
    IntegerWeight,
    alike,
    merge,
    pad_inputs,
    pad_outputs,
    take_rows,
)
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.rotary import Rotary, Table
from duqsweep.quant.kernels.integer import IntegerLinear

FULL_LINE = 128  # bytes of the GPU's cache lines; SigLIP's 4304 hidden channels become 4352


class IntegerPrefixLinears:
    """Makes the products of a prefix layer whose linears have kernel `int8` or `w4a8`."""

    traceable = False  # kernels are launched by hand

    def __init__(self, release: bool = False) -> None:
        """Choose what becomes of the layers.

        Args:
            release: Merged layers let go of their own tensors, so that no code is held twice; the
                module that they stand in can no longer be called.
        """
        self.release = release

    def entry(
        self, norm: Norm, linears: Sequence[nn.Module], rotary: Rotary | None = None
    ) -> nn.Module:
        """One product where the layers can be merged."""
        weights = self._mergeable(linears)
        if not weights:
            return SeparateEntry(norm, linears, rotary)
        weight = merge(weights)
        if rotary is None:
            return IntegerProduct(weight, norm)
        pairs = rotary.interleaved(weight.out_features).to(weight.codes.device)
        return IntegerProduct(take_rows(weight, pairs), norm, "rotary", rotary)

    def exit(self, linear: nn.Module) -> nn.Module:
        """The product with the sum behind it."""
        if isinstance(linear, IntegerLinear):
            return IntegerProduct(linear.weight())
        return SeparateExit(linear)

    def mlp(self, norm: Norm, linears: Sequence[nn.Module]) -> nn.Module:
        """Two products, with the activation behind the first."""
        *first, last = linears
        weights = self._mergeable(first)
        if not weights or not isinstance(last, IntegerLinear):
            return SeparateMlp(norm, linears)
        ending = last.weight()
        if self.release:
            last.release()
        hidden = torch.arange(ending.in_features, device=ending.codes.device)
        if ending.order is not None:
            hidden = ending.order
        # Outputs 2i and 2i + 1 are a gate and what it gates.
        rows = [hidden + i * ending.in_features for i in range(len(first))]
        beginning = take_rows(merge(weights), torch.stack(rows, dim=1).flatten())
        after: After = "gated" if len(first) == 2 else "gelu"
        ending = replace(ending, order=None)
        if ending.scales.shape[1] == 1:
            more = -ending.in_features % FULL_LINE
            beginning, ending = pad_outputs(beginning, len(first) * more), pad_inputs(ending, more)
        return IntegerMlp(IntegerProduct(beginning, norm, after), IntegerProduct(ending))

    def _mergeable(self, linears: Sequence[nn.Module]) -> list[IntegerWeight]:
        integer = [linear for linear in linears if isinstance(linear, IntegerLinear)]
        weights = [linear.weight() for linear in integer]
        if len(weights) < len(linears) or not alike(weights):
            return []
        if self.release:
            for linear in integer:
                linear.release()
        return weights


class IntegerProduct(nn.Module):
    """Norm, rounding, product and what follows it, in two kernels."""

    codes: Tensor
    scales: Tensor
    bias: Tensor | None
    order: Tensor | None
    norm_weight: Tensor | None
    norm_bias: Tensor | None

    def __init__(
        self,
        weight: IntegerWeight,
        norm: Norm | None = None,
        after: After = "nothing",
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__()
        self.block, self.act_bits, self.after = weight.block, weight.act_bits, after
        self.rotary = rotary
        for name in ("codes", "scales", "bias", "order"):
            self.register_buffer(name, getattr(weight, name))
        parts = {"weight": None, "bias": None} if norm is None else vars(norm)
        for name, part in parts.items():
            reordered = part if part is None or weight.order is None else part[weight.order]
            self.register_buffer(f"norm_{name}", reordered)

    def forward(
        self, rows: Tensor, residual: Tensor | None = None, table: Table | None = None
    ) -> Tensor:
        """(tokens, in) → (tokens, out), added to (tokens, out) if given."""
        from duqsweep.kernels.products import Following, integer_linear

        weight = IntegerWeight(
            self.codes, self.scales, self.bias, self.order, self.block, self.act_bits
        )
        norm = None if self.norm_weight is None else Norm(self.norm_weight, self.norm_bias)
        following = Following(self.after, residual, self.rotary, table)
        return integer_linear(rows, weight, norm, following)


class IntegerMlp(nn.Module):
    """Two products and the residual."""

    def __init__(self, first: IntegerProduct, last: IntegerProduct) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, width) → the same."""
        added: Tensor = self.last(self.first(x), x)
        return added


class SeparateEntry(nn.Module):
    """Norm, and one product after the other."""

    def __init__(self, norm: Norm, linears: Sequence[nn.Module], rotary: Rotary | None) -> None:
        super().__init__()
        self.norm, self.linears, self.rotary = norm, nn.ModuleList(linears), rotary

    def forward(self, x: Tensor, table: Table | None = None) -> Tensor:
        """(tokens, width) → (tokens, sum of the layers' outputs)."""
        rows = self.norm.apply(x)
        products = torch.cat([linear(rows) for linear in self.linears], dim=-1)
        if self.rotary is None or table is None:
            return products
        return self.rotary.apply(products, table)


class SeparateExit(nn.Module):
    """An unquantized product and the residual."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, rows: Tensor, x: Tensor) -> Tensor:
        """(tokens, in) and (tokens, out) → (tokens, out)."""
        added: Tensor = x + self.linear(rows)
        return added


class SeparateMlp(nn.Module):
    """An MLP whose layers are called one by one."""

    def __init__(self, norm: Norm, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norm = norm
        *first, self.last = linears
        self.first = nn.ModuleList(first)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, width) → the same."""
        rows = self.norm.apply(x)
        gate, *up = [linear(rows) for linear in self.first]
        hidden = F.gelu(gate, approximate="tanh")
        added: Tensor = x + self.last(hidden * up[0] if up else hidden)
        return added
