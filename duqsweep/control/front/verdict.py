"""Which trial is fast and loses little: the verdict of a sweep, from paired episodes.

All trials play one ledger, so a trial and the unquantized policy are compared on the episodes that
both have played. Tango's score test for the difference of two paired proportions (Statistics in
Medicine 1998) says whether the trial's loss of success is below the margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from duqsweep.control.trials.reader import TrialView

MARGIN = 0.05  # of success rate, by default
CONFIDENCE = 0.95


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


@dataclass(frozen=True)
class Verdict:
    """The fastest trial that loses at most `margin` of success, or how to get to know one.

    The reference is the sweep's trial of the unquantized policy. Trials on the front that are
    faster than it are tested, at a confidence that holds jointly (Bonferroni).
    """

    margin: float
    confidence: float  # that no tested trial passes wrongly
    reference_trial: int
    tested: int  # trials
    trial: int | None  # None: none passes yet
    loss: float | None  # its success rate below the reference's, on common episodes
    loss_high: float | None  # the loss is below this, at the joint confidence
    episodes: int | None  # that it has in common with the reference
    next_trial: int | None  # the fastest that may still pass, faster than `trial`
    episodes_needed: int | None  # common ones, after which it would pass if it continues like this


def verdict(
    candidates: Sequence[tuple[TrialView, float]],
    reference: TrialView,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """Test the candidates against the reference.

    Args:
        candidates: Trials on the front with their time; the reference and slower ones may be
            among them and are not tested.
        reference: The trial of the unquantized policy; it has played episodes.
        margin: The loss of success rate that is tolerated, above 0 and below 1.
        confidence: That no tested trial passes wrongly.
    """
    times = {view.number: time for view, time in candidates}
    slowest = times.get(reference.number, math.inf)
    tested = sorted(
        (time, view.number, Pairs.of(view, reference))
        for view, time in candidates
        if view.number != reference.number and time < slowest
    )
    z = NormalDist().inv_cdf(1 - (1 - confidence) / max(len(tested), 1))
    passed = next((t for t in tested if t[2].episodes and score(t[2], margin) <= -z), None)
    faster = tested[: tested.index(passed)] if passed else tested
    open_ones = [(t, needed) for t in faster if (needed := episodes_needed(t[2], margin, z))]
    upcoming = open_ones[0] if open_ones else None
    return Verdict(
        margin=margin,
        confidence=confidence,
        reference_trial=reference.number,
        tested=len(tested),
        trial=passed[1] if passed else None,
        loss=round(passed[2].loss or 0.0, 4) if passed else None,
        loss_high=round(loss_below(passed[2], z), 4) if passed else None,
        episodes=passed[2].episodes if passed else None,
        next_trial=upcoming[0][1] if upcoming else None,
        episodes_needed=upcoming[1] if upcoming else None,
    )


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


def episodes_needed(pairs: Pairs, margin: float, z: float) -> int | None:
    """Common episodes after which the trial passes, if its wins and losses keep their shares.

    None where its loss so far is not below the margin, or nothing is known.
    """
    if not pairs.episodes:
        return None
    now = score(pairs, margin)
    return math.ceil(pairs.episodes * (z / now) ** 2) if now < 0 else None
