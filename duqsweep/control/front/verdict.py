"""Which trial is fast and loses little: the verdict of a sweep, from paired episodes.

All trials play one ledger, so a trial and the unquantized policy are compared on the episodes that
both have played. A sweep looks again after each of them, so what counts is evidence that holds over
all looks together (`betting`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.control.front.betting import episodes_needed, log_evidence, loss_bound
from duqsweep.control.front.pairs import Pairs
from duqsweep.control.trials.reader import TrialView

MARGIN = 0.05  # of success rate, by default
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """The fastest trial that loses at most `margin` of success, or how to get to know one.

    The reference is the sweep's trial of the unquantized policy. Trials on the front that are
    faster than it are tested, at a confidence that holds jointly for all looks during a sweep and
    for all its trials (Bonferroni).
    """

    margin: float
    confidence: float  # that no trial ever passes wrongly
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
    trials: int = 0,
) -> Verdict:
    """Test the candidates against the reference.

    Args:
        candidates: Trials on the front with their time; the reference and slower ones may be
            among them and are not tested.
        reference: The trial of the unquantized policy; it has played episodes.
        margin: The loss of success rate that is tolerated, above 0 and below 1.
        confidence: That no trial ever passes wrongly.
        trials: That the sweep has beside the reference, of which the candidates were chosen.
    """
    times = {view.number: time for view, time in candidates}
    slowest = times.get(reference.number, math.inf)
    tested = sorted(
        (time, view.number, Pairs.of(view, reference))
        for view, time in candidates
        if view.number != reference.number and time < slowest
    )
    threshold = max(trials, len(tested), 1) / (1 - confidence)
    goal = math.log(threshold)
    passed = next((t for t in tested if log_evidence(t[2], margin) >= goal), None)
    faster = tested[: tested.index(passed)] if passed else tested
    open_ones = [(t, n) for t in faster if (n := episodes_needed(t[2], margin, threshold))]
    upcoming = open_ones[0] if open_ones else None
    return Verdict(
        margin=margin,
        confidence=confidence,
        reference_trial=reference.number,
        tested=len(tested),
        trial=passed[1] if passed else None,
        loss=round(passed[2].loss or 0.0, 4) if passed else None,
        loss_high=round(loss_bound(passed[2], threshold), 4) if passed else None,
        episodes=passed[2].episodes if passed else None,
        next_trial=upcoming[0][1] if upcoming else None,
        episodes_needed=upcoming[1] if upcoming else None,
    )
