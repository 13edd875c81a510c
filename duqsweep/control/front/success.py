"""How often a trial succeeds, with an interval for the true rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from duqsweep.codec import FLAT
from duqsweep.control.front.intervals import wilson
from duqsweep.result import SuccessCounts

Interval = Callable[[int, int], tuple[float, float]]  # successes, episodes that ran → low, high


@dataclass(frozen=True)
class SuccessEstimate:
    """A success rate with its interval and the episodes that it comes from."""

    success_rate: float | None  # None without an episode that ran
    success_low: float | None  # the interval's ends, 0 to 1
    success_high: float | None
    counts: SuccessCounts = field(metadata=FLAT)

    @classmethod
    def of(cls, counts: SuccessCounts, interval: Interval = wilson) -> SuccessEstimate:
        """The estimate from some episodes, with Wilson's 95 % interval by default."""
        if not counts.ran:
            return cls(None, None, None, counts)
        low, high = interval(counts.successes, counts.ran)
        return cls(counts.success_rate, low, high, counts)
