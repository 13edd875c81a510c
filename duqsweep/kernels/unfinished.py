"""Results whose parts are still to be added up.

Whichever kernel reads such a result first adds them up: the one that quantizes it for the next
product, or one only for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(kw_only=True)
class Unfinished:
    """Parts of a result, and where it will be."""

    out: Tensor  # (tokens, width): the result, once it is finished
    parts: Tensor  # (parts, tokens, width)
    add_up: Callable[[], None]  # launches the kernel only for that
    is_finished: bool = False

    def finished(self) -> Tensor:
        """The result, for kernels that follow on the stream."""
        if not self.is_finished:
            self.add_up()
            self.is_finished = True
        return self.out


@dataclass(kw_only=True)
class AttentionParts(Unfinished):
    """Results of attention to parts of the keys, in float32.

    They add up with weights 2**log / (sum of all 2**log).
    """

    logs: Tensor  # (parts, tokens, heads) float32: log2 of the sum of exponentials


@dataclass(kw_only=True)
class ProductParts(Unfinished):
    """Sums over parts of the input channels, in int32, or float32 of e4m3."""

    weight_scales: Tensor  # (width, 1) float32, in `gemm.row_order`
    token_scales: Tensor  # (tokens,) float32
    bias: Tensor | None  # (width,) bfloat16, in `gemm.row_order`
    residual: Tensor | None  # (tokens, width) bfloat16


Rows = Tensor | Unfinished


def finished(rows: Rows) -> Tensor:
    """The tensor itself, or the result."""
    return rows.finished() if isinstance(rows, Unfinished) else rows
