"""How the fused prefix makes products of linear layers: the seam, and its unquantized form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.rotary import Rotary, Table
from duqsweep.policy.gemma import RmsNorm


class PrefixLinears(Protocol):
    """Makes the products of one layer. Rows are (tokens, width)."""

    @property
    def traceable(self) -> bool:
        """Whether torch.compile can look into the modules."""

    def entry(
        self, norm: Norm, linears: Sequence[nn.Module], rotary: Rotary | None = None
    ) -> nn.Module:
        """One module: x → the products of its norm, side by side.

        With `rotary` it is called with `table` as well, and rotates.
        """

    def exit(self, linear: nn.Module) -> nn.Module:
        """One module: (rows, x) → x plus the product of rows."""

    def mlp(self, norm: Norm, linears: Sequence[nn.Module]) -> nn.Module:
        """One module: x → x plus the MLP of its norm; of (first, last), or (gate, up, last)."""


class PlainPrefixLinears:
    """Unquantized products."""

    traceable = True

    def entry(
        self, norm: Norm, linears: Sequence[nn.Module], rotary: Rotary | None = None
    ) -> nn.Module:
        """Weights one below the other."""
        return PlainEntry(norm, linears, rotary)

    def exit(self, linear: nn.Module) -> nn.Module:
        """The layer itself, and a sum."""
        return PlainExit(linear)

    def mlp(self, norm: Norm, linears: Sequence[nn.Module]) -> nn.Module:
        """Gate and up merged."""
        return PlainMlp(norm, linears)


class PlainEntry(nn.Module):
    """Norm and one product."""

    def __init__(
        self, norm: Norm, linears: Sequence[nn.Module], rotary: Rotary | None = None
    ) -> None:
        super().__init__()
        self.norm, self.rotary = norm, rotary
        self.linear = merged(linears)

    def forward(self, x: Tensor, table: Table | None = None) -> Tensor:
        """See `PrefixLinears.entry`."""
        products = cast(Tensor, self.linear(self.norm.apply(x)))
        if self.rotary is None or table is None:
            return products
        return self.rotary.apply(products, table)


class PlainExit(nn.Module):
    """A product and the residual."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = merged([linear])

    def forward(self, rows: Tensor, x: Tensor) -> Tensor:
        """See `PrefixLinears.exit`."""
        return cast(Tensor, x + self.linear(rows))


class PlainMlp(nn.Module):
    """Two products with tanh GELU between, or with a GELU gate."""

    def __init__(self, norm: Norm, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        *first, last = linears
        self.gated = len(first) == 2
        self.first, self.last = PlainEntry(norm, first), PlainExit(last)

    def forward(self, x: Tensor) -> Tensor:
        """See `PrefixLinears.mlp`."""
        hidden = self.first(x)
        if self.gated:
            gate, up = hidden.chunk(2, dim=-1)
            return cast(Tensor, self.last(F.gelu(gate, approximate="tanh") * up, x))
        return cast(Tensor, self.last(F.gelu(hidden, approximate="tanh"), x))


def merged(linears: Sequence[nn.Module]) -> nn.Linear:
    """One layer whose outputs are those of all, one after the other.

    The layers' own weights become views of its weight, so that nothing is held twice.

    Raises:
        EvaluationError: A layer is not a plain linear one.
    """
    plain = [linear for linear in linears if isinstance(linear, nn.Linear)]
    if len(plain) < len(linears):
        kinds = sorted({type(linear).__name__ for linear in linears})
        raise EvaluationError(f"only unquantized layers can be merged here, got {kinds}")
    first = plain[0]
    if len(plain) == 1:
        return first
    weight = torch.cat([linear.weight.detach() for linear in plain])
    both = nn.Linear(first.in_features, len(weight), bias=first.bias is not None, device="meta")
    both.weight = nn.Parameter(weight, requires_grad=False)
    parts = torch.split(weight, [len(linear.weight) for linear in plain])
    for linear, part in zip(plain, parts, strict=True):
        linear.weight.data = part
    if first.bias is not None:
        bias = torch.cat([linear.bias.detach() for linear in plain])
        both.bias = nn.Parameter(bias, requires_grad=False)
    return both


def norm_record(norm: RmsNorm | nn.LayerNorm) -> Norm:
    """The norm's tensors in float32."""
    weight = norm.weight.detach().float()
    if isinstance(norm, nn.LayerNorm):
        return Norm(weight, norm.bias.detach().float())
    return Norm(1.0 + weight)


def suited(stack: nn.Module, linears: PrefixLinears | None) -> PrefixLinears:
    """`linears` for a stack with quantized layers, otherwise the unquantized products."""
    names = ("_proj", "fc1", "fc2")
    products = [child for name, child in stack.named_modules() if name.endswith(names)]
    quantized = not all(isinstance(product, nn.Linear) for product in products)
    return linears if linears is not None and quantized else PlainPrefixLinears()
