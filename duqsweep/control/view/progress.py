"""The events that a sweep's loop reports to its watcher, and the watcher that shows nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from duqsweep.control.front.records import Front
from duqsweep.result import Throughput, TrialResult, Vitals
from duqsweep.spec import Trial


@dataclass(frozen=True)
class Plan:
    """How much a sweep may do, for the figures of progress."""

    sweep: str
    trials: int
    episodes_per_trial: int
    ended: frozenset[int] = frozenset()  # trials that ended under earlier controllers
    shared_episodes: int | None = None  # of all trials, where the search shares them out
    hint: Callable[[Throughput], str | None] = lambda _: None  # what would play episodes faster
    expected_s: float | None = None  # that all of it takes, as `duqsweep plan` says
    # What a trial's worker does before its first episode; None while no worker has begun.
    phase: Callable[[int], str | None] = lambda _: None


class Progress(Protocol):
    """Receives the loop's events; a context manager that restores the terminal."""

    def __enter__(self) -> Progress:
        """Start watching."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching, whether the loop returned or raised."""

    def started(self, trial: Trial) -> None:
        """A trial was submitted, for the first time or again."""

    def vitals(self, number: int, vitals: Vitals) -> None:
        """A trial's benchmark is done."""

    def progressed(self, number: int, episodes: int, successes: int) -> None:
        """A trial has played so many episodes."""

    def throughput(self, number: int, throughput: Throughput) -> None:
        """How fast a trial's latest assignment is played."""

    def ended(self, number: int, result: TrialResult) -> None:
        """A trial has a result."""

    def paused(self, number: int, result: TrialResult) -> None:
        """A trial has reached its assignment; it may get more episodes later."""

    def died(self, number: int, text: str) -> None:
        """A trial's job died; `text` says how, and what happens to the trial."""

    def front(self, front: Front) -> None:
        """The front may have changed."""

    def message(self, text: str) -> None:
        """Anything else the user should know."""

    def tick(self) -> None:
        """Called whenever the loop turns, so that clocks advance."""


class Quiet:
    """Entering and leaving without anything to restore."""

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class NullProgress(Quiet):
    """Shows nothing."""

    def started(self, trial: Trial) -> None:
        """Nothing."""

    def vitals(self, number: int, vitals: Vitals) -> None:
        """Nothing."""

    def progressed(self, number: int, episodes: int, successes: int) -> None:
        """Nothing."""

    def throughput(self, number: int, throughput: Throughput) -> None:
        """Nothing."""

    def ended(self, number: int, result: TrialResult) -> None:
        """Nothing."""

    def paused(self, number: int, result: TrialResult) -> None:
        """Nothing."""

    def died(self, number: int, text: str) -> None:
        """Nothing."""

    def front(self, front: Front) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def tick(self) -> None:
        """Nothing."""
