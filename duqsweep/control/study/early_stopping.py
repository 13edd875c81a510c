"""Early-stopping rules: which running trials are not worth more episodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.intervals import probability_at_least
from duqsweep.control.protocols import Prune
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.spec import Trial

# Without a margin the noise of the clock swaps neighbours, and two to five times as many members of
# the front are lost (simulated).
TIME_MARGIN = 0.04
CONFIDENCE = 0.98
MIN_SPEEDUP = 1 / (1 + TIME_MARGIN)  # against the unquantized policy


@dataclass(frozen=True)
class Incumbent:
    """A trial that was evaluated."""

    trial: int
    speedup: float  # of a nominal episode, against the reference on its own node
    successes: int
    episodes: int  # successes and failures


class PruneSlow:
    """Prunes a trial that is too slow to reach the front of success and time.

    Plans, which the user asked for by name, are never pruned; nor is a trial of a sweep that trades
    other objectives.
    """

    def __init__(
        self, config: SweepConfig, reader: TrialReader, against_trials: bool = True
    ) -> None:
        """The rule for the sweep of `config`.

        Args:
            config: Of the sweep.
            reader: Of its trials.
            against_trials: Compare with other trials too, not only with the unquantized policy.
        """
        self._against_trials = against_trials
        self._calls = config.base.suite.nominal_calls
        names = {objective.name for objective in config.objectives}
        self._is_on = names == {"success_rate", "episode_time_s"}
        self._reader = reader
        self._incumbents: dict[int, tuple[TrialView, Incumbent]] = {}  # by number

    def decide(self, view: TrialView) -> Prune | None:
        """See `protocols.EarlyStopping`."""
        if view.vitals is None or not self._may_prune(view.trial):
            return None
        others = self._reader.known() if self._against_trials else []
        incumbents = [
            self._incumbent(other)
            for other in others
            if other.vitals is not None and other.number != view.number and other.result is not None
        ]
        counts = view.counts
        cause = too_slow(self._speed(view), counts.successes, counts.ran, incumbents)
        return None if cause is None else Prune(cause)

    def min_speedup(self, trial: Trial) -> float:
        """See `protocols.EarlyStopping`."""
        if not self._may_prune(trial):
            return 0.0
        # A little less, so that `decide` prunes every trial that the worker ends, however rounded.
        return (1 - 1e-9) * MIN_SPEEDUP / self._calls_saved(trial)

    def _incumbent(self, view: TrialView) -> Incumbent:
        """What an evaluated trial is compared by; looked up anew only when it has changed."""
        known = self._incumbents.get(view.number)
        if known is None or known[0] is not view:
            counts = view.counts
            found = Incumbent(view.number, self._speed(view), counts.successes, counts.ran)
            known = self._incumbents[view.number] = (view, found)
        return known[1]

    def _may_prune(self, trial: Trial) -> bool:
        return self._is_on and trial.name is None

    def _speed(self, view: TrialView) -> float:
        """How many times faster than the unquantized policy a nominal episode is."""
        assert view.vitals is not None
        return view.vitals.speedup * self._calls_saved(view.trial)

    def _calls_saved(self, trial: Trial) -> float:
        """Calls of a nominal episode as the sweep's base has it, over those of the trial."""
        return self._calls / trial.spec.suite.nominal_calls


class NoEarlyStopping:
    """Prunes nothing: the number of episodes was fixed beforehand."""

    def decide(self, view: TrialView) -> Prune | None:
        """See `protocols.EarlyStopping`."""
        return None

    def min_speedup(self, trial: Trial) -> float:
        """See `protocols.EarlyStopping`."""
        return 0.0


def too_slow(
    speedup: float, successes: int, episodes: int, incumbents: Iterable[Incumbent]
) -> str | None:
    """Why a trial cannot reach the front of success and time; None while it can.

    It cannot if it is slower than the unquantized policy, which its quantization only approximates;
    or slower than an incumbent whose success rate is at least its own with a probability of
    `CONFIDENCE`. Slower means by more than `TIME_MARGIN`.

    Args:
        speedup: Of a nominal episode of the trial, against the reference.
        successes: Of the trial so far.
        episodes: Its successes and failures so far; 0 is allowed.
        incumbents: Evaluated trials.
    """
    if speedup < MIN_SPEEDUP:
        return f"slower than the unquantized policy: {speedup:.2f} times its speed"
    best: dict[int, Incumbent] = {}  # of the faster ones with so many episodes
    for incumbent in incumbents:
        if speedup * (1 + TIME_MARGIN) < incumbent.speedup:
            known = best.setdefault(incumbent.episodes, incumbent)
            if incumbent.successes > known.successes:
                best[incumbent.episodes] = incumbent
    for incumbent in best.values():
        sure = probability_at_least(incumbent.successes, incumbent.episodes, successes, episodes)
        if sure >= CONFIDENCE:
            return (
                f"slower than trial {incumbent.trial}, {speedup:.2f} against "
                f"{incumbent.speedup:.2f} times the unquantized speed, which succeeds as often "
                f"with probability {sure:.3f}"
            )
    return None
