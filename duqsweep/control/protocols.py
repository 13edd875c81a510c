"""What the loop of a sweep is given: protocols only, so that the loop knows no library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from duqsweep.assignment import Assignment
    from duqsweep.control.front.records import Front
    from duqsweep.control.trial_status import TrialStatus
    from duqsweep.control.trials.reader import TrialView
    from duqsweep.result import Outcome
    from duqsweep.spec import Trial


class Search(Protocol):
    """Decides what to evaluate next. An assignment is: trial T, up to episode N.

    A trial that reaches its assignment is paused, unless `is_final` says that it needs no more
    episodes; a later assignment of the same trial resumes it. Everything that must survive a
    restart is in the files of the trials, or in a study that the search keeps.
    """

    def next(self, pending: Sequence[Assignment]) -> Assignment | None:
        """The next assignment; None while there is nothing to do until something pending ends.

        Also None while `is_busy`: ask again in a moment.

        Trials that an earlier controller left unfinished come first. The trial's spec.json is
        written.

        Args:
            pending: What runs or waits for a job; no assignment of the same trial may be returned.
        """

    @property
    def is_busy(self) -> bool:
        """Whether something is computed beside the loop that is not taken in yet."""

    def poll(self, wait_s: float = 0.0) -> bool:
        """Take in what was computed beside the loop; returns whether it changes the front.

        Args:
            wait_s: How long to wait for what is still computed.
        """

    def observed(self, view: TrialView) -> None:
        """A trial has made progress (a benchmark, episodes), or has reached its assignment."""

    def is_final(self, view: TrialView) -> bool:
        """Whether a trial that has reached its assignment needs no more episodes."""

    def ended(self, view: TrialView) -> None:
        """A trial is complete, pruned or failed; called again if the controller was killed."""


@dataclass(frozen=True)
class Prune:
    """A decision to end a trial early."""

    cause: str  # a sentence for people


class EarlyStopping(Protocol):
    """Decides which running trials are not worth more episodes. Apart from the search."""

    def decide(self, view: TrialView) -> Prune | None:
        """Whether to end a trial that was benchmarked; None to let it continue."""

    def min_speedup(self, trial: Trial) -> float:
        """The speed-up that a trial needs to get its first episode; 0: none.

        It goes into the trial's spec.json, and the worker compares with it before the first
        episode, when no controller may be there to decide. `decide` prunes every slower trial.
        """


class Trials(Protocol):
    """The trials of the sweep as their files show them."""

    def read(self) -> list[TrialView]:
        """Every trial that has a spec, by number."""

    def view(self, number: int) -> TrialView:
        """One trial; the same object as before where no file changed."""

    def set_status(self, number: int, status: TrialStatus) -> TrialView:
        """Write a trial's status, durably; returns the trial as it is then."""

    def write_result(
        self, number: int, outcome: Outcome, reason: str, error: tuple[str, str] | None = None
    ) -> TrialView:
        """Write the result that a dead job could not; returns the trial as it is then.

        Args:
            number: Of the trial.
            outcome: How it ended.
            reason: A sentence for people.
            error: Kind and message of what made it fail.
        """


class FrontKeeper(Protocol):
    """Keeps reference.json and front.json."""

    def measured(self, view: TrialView) -> None:
        """A trial has a benchmark: the first one gives the sweep's reference time."""

    def update(self, views: Sequence[TrialView], final: bool = False) -> Front | None:
        """Bring front.json up to date; returns the front, or None if it is too soon for that.

        The front of many trials takes long to compute, so that it is not computed after each.

        Args:
            views: All trials, by number.
            final: Never too soon: the loop ends.
        """


class Tracker(Protocol):
    """Mirrors the sweep elsewhere; never raises and never waits."""

    def trial_changed(self, number: int) -> None:
        """Files of a trial changed."""

    def front_changed(self, front: Front) -> None:
        """front.json changed."""
