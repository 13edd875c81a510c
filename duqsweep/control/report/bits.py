"""The bits of each layer as the report draws them: one grid of columns per part of the policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from duqsweep.control.trials.reader import TrialView
from duqsweep.quant.select import Bits

# What a layer's dotted name contains → the part's name, as `parts_ms` of vitals has it.
_PARTS = {"vision_tower": "vision", "language_model": "LLM", "gemma_expert": "DiT"}
_NUMBERED = re.compile(r"\.layers\.(\d+)\.(.+)$")


class BitsTable:
    """Each layer once, and each different assignment of bits once; trials refer to it by number."""

    def __init__(self, views: Sequence[TrialView]) -> None:
        """Of the layers that some trial quantizes."""
        maps = [view.vitals.bits for view in views if view.vitals and view.vitals.bits]
        self._layers = list(dict.fromkeys(name for bits in maps for name in bits))
        self._numbers: dict[tuple[Bits | None, ...], int] = {}

    def number(self, bits: Mapping[str, Bits]) -> int | None:
        """The number of an assignment of bits; None where no layer is quantized."""
        if not bits:
            return None
        row = tuple(bits.get(name) for name in self._layers)
        return self._numbers.setdefault(row, len(self._numbers))

    def to_json(self) -> dict[str, Any]:
        """The layers as [part, index, name in the layer], and per assignment the bits of each.

        Bits are [of weights, of activations]; null for a layer that is not quantized.
        """
        return {
            "layers": [_place(name) for name in self._layers],
            "maps": [list(row) for row in self._numbers],
        }


def _place(name: str) -> tuple[str, int, str]:
    part = next((short for inside, short in _PARTS.items() if inside in name), "other")
    found = _NUMBERED.search(name)
    return (part, int(found[1]), found[2]) if found else (part, 0, name)
