"""The sizes of policies that tests play with: of the shipped one, but for a third of its layers.

A call takes half the time. What a whole sweep of the shipped policy does, `make sweep` shows.
"""

from __future__ import annotations

from dataclasses import replace

from duqsweep.checkpoint.sizes import sizes_of

_SHIPPED = sizes_of("embedded")
SIZES = replace(
    _SHIPPED,
    llm=replace(_SHIPPED.llm, depth=2),
    expert=replace(_SHIPPED.expert, depth=2),
)
