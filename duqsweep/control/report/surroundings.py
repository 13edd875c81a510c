"""What a report tells beside the front and its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from duqsweep.control.front.factors import Timings


@dataclass(frozen=True)
class Surroundings:
    """What a page tells beside the front and its trials."""

    sweep_yaml: str = ""  # the resolved configuration, shown as it is
    instructions: Sequence[str] = ()  # of each task, as far as known
    videos: Sequence[str] = ()  # of episodes; paths relative to the page
    folder: str = "DIR"  # the sweep's, as a shell reads it
    again: Mapping[int, str] = field(default_factory=dict)  # trial → the words of `evaluate`
    timings: Timings = field(default_factory=lambda: Timings([]))  # of unquantized twins
