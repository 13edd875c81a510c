"""Epilogues: what is applied to a product before its result is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from duqsweep.kernels.rotary import Rotary, Table

# "gelu": tanh-GELU. "gated": tanh-GELU of output 2i times output 2i + 1. "rotary": rotary positions
# on the pairs (2i, 2i + 1), which are stored in the two halves of their head.
EpilogueKind = Literal["nothing", "gelu", "gated", "rotary"]


@dataclass(frozen=True)
class Epilogue:
    """What is applied to a product."""

    kind: EpilogueKind = "nothing"
    residual: Tensor | None = None  # (tokens, out) in the result's dtype, added last
    rotary: Rotary | None = None  # for kind "rotary"
    table: Table | None = None  # for kind "rotary"


NOTHING = Epilogue()
