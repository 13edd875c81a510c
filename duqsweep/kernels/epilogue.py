"""What follows a product before its result is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from duqsweep.kernels.rotary import Rotary, Table

# Nothing; tanh-GELU; of outputs 2i and 2i + 1, tanh-GELU of the first times the second; or rotary
# positions, where outputs 2i and 2i + 1 are a pair, stored apart.
EpilogueKind = Literal["nothing", "gelu", "gated", "rotary"]


@dataclass(frozen=True)
class Epilogue:
    """What is done with a product."""

    kind: EpilogueKind = "nothing"
    residual: Tensor | None = None  # (tokens, out) of the result's dtype, added at the end
    rotary: Rotary | None = None  # where `kind` is "rotary", with its table
    table: Table | None = None


NOTHING = Epilogue()
