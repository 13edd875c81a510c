"""What the loop of a sweep tells its watcher, and the watcher that says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from duqsweep.result import TrialResult, Vitals
from duqsweep.spec import Trial


@dataclass(frozen=True)
class Plan:
    """How much a sweep may do, for the figures of progress."""

    sweep: str
    trials: int
    episodes_per_trial: int
    ended: frozenset[int] = frozenset()  # trials that ended under earlier controllers


class Progress(Protocol):
    """What the loop tells its watcher; a context manager that gives the terminal back."""

    def __enter__(self) -> Progress:
        """Start watching."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching, however the loop ended."""

    def started(self, trial: Trial) -> None:
        """A trial was submitted, or taken up again."""

    def vitals(self, number: int, vitals: Vitals) -> None:
        """A trial's benchmark is done."""

    def progressed(self, number: int, episodes: int, successes: int) -> None:
        """A trial has walked so many episodes."""

    def ended(self, number: int, result: TrialResult) -> None:
        """A trial is over, well or badly."""

    def paused(self, number: int, result: TrialResult) -> None:
        """A trial has reached its assignment; it may get more episodes later."""

    def died(self, number: int, text: str) -> None:
        """A trial's job died; `text` says how, and what becomes of the trial."""

    def front(self, content: Mapping[str, Any]) -> None:
        """The front may have changed; `content` is `front_content`'s."""

    def message(self, text: str) -> None:
        """Anything else the user should know."""

    def tick(self) -> None:
        """Called whenever the loop turns, so that clocks go on."""


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
    """Says nothing."""

    def started(self, trial: Trial) -> None:
        """Nothing."""

    def vitals(self, number: int, vitals: Vitals) -> None:
        """Nothing."""

    def progressed(self, number: int, episodes: int, successes: int) -> None:
        """Nothing."""

    def ended(self, number: int, result: TrialResult) -> None:
        """Nothing."""

    def paused(self, number: int, result: TrialResult) -> None:
        """Nothing."""

    def died(self, number: int, text: str) -> None:
        """Nothing."""

    def front(self, content: Mapping[str, Any]) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def tick(self) -> None:
        """Nothing."""
