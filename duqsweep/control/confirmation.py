"""Confirmation: what a front's points are worth on initial states that the search never saw.

The chosen trials play a ledger of reserved states once, with a number of episodes fixed
beforehand, so the intervals are exact whatever the search did: Clopper-Pearson at 1 - 0.05/K for K
points (Bonferroni), and the exact paired test (McNemar) against the unquantized policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from duqsweep import files
from duqsweep.assignment import Assignment
from duqsweep.control.front.intervals import clopper_pearson
from duqsweep.control.front.pairs import Pairs
from duqsweep.control.front.reserved import Confirmation, ConfirmedPoint
from duqsweep.control.front.success import Interval, SuccessEstimate
from duqsweep.control.trials.reader import TrialView, read_trials
from duqsweep.errors import ConfigError
from duqsweep.spec import LedgerEntry, Trial
from duqsweep.worker.ledger import write_ledger

ALPHA = 0.05


class FixedTrials:
    """A search that evaluates given trials to the same number of episodes and proposes none."""

    def __init__(self, trials: Sequence[int], episodes: int) -> None:
        """Evaluate `trials` to `episodes` each."""
        self._left = list(trials)
        self._episodes = episodes

    def next(self, pending: Sequence[Assignment]) -> Assignment | None:
        """See `protocols.Search`."""
        numbers = {assignment.trial for assignment in pending}
        self._left = [number for number in self._left if number not in numbers]
        return Assignment(self._left.pop(0), self._episodes) if self._left else None

    @property
    def is_busy(self) -> bool:
        """See `protocols.Search`: everything is decided at once."""
        return False

    def poll(self, wait_s: float = 0.0) -> bool:
        """See `protocols.Search`."""
        return False

    def observed(self, view: TrialView) -> None:
        """Nothing to remember: everything is in the files."""

    def is_final(self, view: TrialView) -> bool:
        """See `protocols.Search`; `unconfirmed` gives out again what has fewer episodes."""
        return True

    def ended(self, view: TrialView) -> None:
        """Nothing to remember: everything is in the files."""


def prepare(
    folder: Path, sweep_dir: Path, trials: Sequence[Trial], ledger: Sequence[LedgerEntry]
) -> None:
    """Lay out a folder of fixed trials as a sweep's, or check that the one there is the same.

    Args:
        folder: In the sweep's folder.
        sweep_dir: The sweep's folder.
        trials: What is evaluated.
        ledger: What they play.

    Raises:
        ConfigError: Trials with another ledger were begun in this folder.
        EvaluationError: The sweep's identity.json is damaged.
    """
    identity = files.read_object(sweep_dir / files.IDENTITY_JSON, ["checkpoint"])
    folder.mkdir(exist_ok=True)
    path = folder / files.LEDGER_JSON
    wanted = folder / f"{files.LEDGER_JSON}.new"
    write_ledger(wanted, list(ledger))
    if path.exists() and path.read_bytes() != wanted.read_bytes():
        wanted.unlink()
        raise ConfigError(f"{folder} was begun on other states; move it away to begin a new one")
    wanted.replace(path)
    # Workers compare the checkpoint with it.
    files.write_json(folder / files.IDENTITY_JSON, identity)
    _share_observations(sweep_dir, folder)
    for trial in trials:
        trial_dir = files.trial_dir(folder, trial.number)
        trial_dir.mkdir(parents=True, exist_ok=True)
        if not (trial_dir / files.SPEC_JSON).exists():
            spec = replace(trial, min_speedup=0.0)  # nothing is pruned
            files.write_json(trial_dir / files.SPEC_JSON, spec.to_json())


def _share_observations(sweep_dir: Path, folder: Path) -> None:
    """Let workers find the sweep's fixed observations; making them anew takes a minute."""
    cache = folder / files.CACHE_DIR
    cache.mkdir(exist_ok=True)
    for known in (sweep_dir / files.CACHE_DIR).glob("observations-*.npz"):
        if not (cache / known.name).exists():
            files.write_bytes(cache / known.name, known.read_bytes())


def unconfirmed(folder: Path, trials: Sequence[int], episodes: int) -> list[int]:
    """Those of `trials` that have neither failed nor played `episodes` episodes in the folder."""
    settled = {
        view.number
        for view in read_trials(folder)
        if view.result and (view.outcome == "failed" or view.result.episodes >= episodes)
    }
    return [number for number in trials if number not in settled]


def confirmation(folder: Path, reference: int | None) -> Confirmation:
    """What the confirmed trials are worth.

    Args:
        folder: The confirmation's folder.
        reference: The trial that the others are paired with; None: no paired test.

    Returns:
        A point per trial that has played episodes, with Clopper-Pearson intervals that hold jointly
        over all points. Where the suite has categories, their intervals hold jointly over all
        points and categories.
    """
    return confirmation_of(read_trials(folder), reference)


def confirmation_of(views: Sequence[TrialView], reference: int | None) -> Confirmation:
    """The same from trials that were read."""
    played = [view for view in views if view.result and view.result.episodes]
    against = next((view for view in played if view.number == reference), None)
    confidence = 1 - ALPHA / max(len(played), 1)
    points = tuple(_point(view, against, confidence) for view in played)
    return Confirmation(1 - ALPHA, reference, points)


def _point(view: TrialView, against: TrialView | None, confidence: float) -> ConfirmedPoint:
    pairs = Pairs.of(view, against) if against else Pairs(0, 0, 0)
    jointly = 1 - (1 - confidence) / max(len(view.categories), 1)
    return ConfirmedPoint(
        trial=view.number,
        name=view.trial.name,
        params=view.trial.params,
        success=SuccessEstimate.of(view.counts, _exact(confidence)),
        wins=pairs.wins,
        losses=pairs.losses,
        p_value=mcnemar(pairs.wins, pairs.losses) if against else None,
        common_episodes=pairs.episodes,
        categories={
            name: SuccessEstimate.of(counts, _exact(jointly))
            for name, counts in view.categories.items()
        },
    )


def _exact(confidence: float) -> Interval:
    return partial(clopper_pearson, confidence=confidence)


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided p-value of the exact sign test on discordant pairs; 1 where there are none."""
    pairs = wins + losses
    tail = sum(math.comb(pairs, k) for k in range(min(wins, losses) + 1))
    return float(min(1.0, 2 * tail / 2**pairs))
