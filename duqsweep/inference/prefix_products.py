"""How the fused prefix makes products of linear layers: the seam, and its unquantized form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.kernels.gelu_linear import gelu_linear
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.rotary import Rotary, Table
from duqsweep.policy.gemma import RmsNorm

FULL_LINE = 128  # channels; SigLIP's 4304 hidden ones become 4352


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
        """Gate and up merged; without a gate, GELU behind the first product."""
        return (PlainMlp if len(linears) == 3 else PlainGeluMlp)(norm, linears)


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
    """Two products with a GELU gate between."""

    def __init__(self, norm: Norm, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        *first, last = linears
        self.first, self.last = PlainEntry(norm, first), PlainExit(last)

    def forward(self, x: Tensor) -> Tensor:
        """See `PrefixLinears.mlp`."""
        gate, up = self.first(x).chunk(2, dim=-1)
        return cast(Tensor, self.last(F.gelu(gate, approximate="tanh") * up, x))


class PlainGeluMlp(nn.Module):
    """Two products with tanh-GELU between."""

    def __init__(self, norm: Norm, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norm = norm
        first, last = (merged([linear]) for linear in linears)
        self.first, last = widened(first, last)
        self.last = PlainExit(last)

    def forward(self, x: Tensor) -> Tensor:
        """See `PrefixLinears.mlp`."""
        hidden = gelu_linear(self.norm.apply(x), self.first.weight, self.first.bias)
        return cast(Tensor, self.last(hidden, x))


def widened(first: nn.Linear, last: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """The two with zero channels between them, so that rows fill cache lines.

    Without them, torch.compile keeps such rows apart, and each product is then copied. The layers'
    own weights become views, as in `merged`.
    """
    more = -first.out_features % FULL_LINE
    if more == 0:
        return first, last
    taller = linear_of(
        F.pad(first.weight.detach(), (0, 0, 0, more)), F.pad(first.bias.detach(), (0, more))
    )
    wider = linear_of(F.pad(last.weight.detach(), (0, more)), last.bias.detach())
    first.weight.data = taller.weight[:-more].detach()
    last.weight.data = wider.weight[:, :-more].detach()
    return taller, wider


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of these tensors."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


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
    parts = torch.split(weight, [len(linear.weight) for linear in plain])
    for linear, part in zip(plain, parts, strict=True):
        linear.weight.data = part
    biased = first.bias is not None
    return linear_of(
        weight, torch.cat([linear.bias.detach() for linear in plain]) if biased else None
    )


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
