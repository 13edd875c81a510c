"""Two trials on the episodes that both have played, and tests of their difference at one look.

Tango's score test for the difference of two paired proportions (Statistics in Medicine 1998). It
holds for a number of episodes that was fixed beforehand, as that of `confirm`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from duqsweep.control.trials.reader import TrialView


@dataclass(frozen=True)
class Pairs:
    """How two trials did on the episodes that both have played."""

    episodes: int
    wins: int  # that only the trial solved
    losses: int  # that only the reference solved

    @classmethod
    def of(cls, view: TrialView, reference: TrialView) -> Pairs:
        """The pairs of two trials; an episode that ended in an error is left out."""
        theirs = {e.i: e.success for e in reference.episodes if e.error is None}
        pairs = [
            (e.success, theirs[e.i]) for e in view.episodes if e.error is None and e.i in theirs
        ]
        return cls(len(pairs), pairs.count((True, False)), pairs.count((False, True)))

    @property
    def loss(self) -> float | None:
        """Success rate of the reference minus the trial's; None without common episodes."""
        return (self.losses - self.wins) / self.episodes if self.episodes else None


def score(pairs: Pairs, margin: float) -> float:
    """Tango's score: how many standard errors the loss lies above `margin`; negative: below."""
    n, more, fewer = pairs.episodes, pairs.losses, pairs.wins
    # The chance that only the trial succeeds, as likely as it can be if the loss is the margin.
    b = (2 * n - more + fewer) * margin - more - fewer
    c = -fewer * margin * (1 - margin)
    chance = (math.sqrt(b * b - 8 * n * c) - b) / (4 * n)
    variance = n * (2 * chance + margin * (1 - margin))
    return (more - fewer - n * margin) / math.sqrt(variance) if variance > 0 else 0.0


def loss_below(pairs: Pairs, z: float) -> float:
    """The margin at which the score is -z: an upper bound of the loss."""
    low, high = max(pairs.loss or 0.0, 0.0), 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if score(pairs, middle) > -z else (low, middle)
    return high


def loss_above(pairs: Pairs, z: float) -> float:
    """The margin at which the score is z: a lower bound of the loss; negative for a gain."""
    if score(pairs, 0.0) < z:
        return -loss_below(Pairs(pairs.episodes, pairs.losses, pairs.wins), z)
    low, high = 0.0, pairs.loss or 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if score(pairs, middle) > z else (low, middle)
    return low
