"""The output of a running sweep: a live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console

from duqsweep.control.front.records import Front
from duqsweep.control.view import wording
from duqsweep.control.view.livetable import LiveTable
from duqsweep.control.view.progress import NullProgress, Plan, Progress, Quiet
from duqsweep.output import silence
from duqsweep.result import Throughput, TrialResult, Vitals
from duqsweep.spec import Trial

__all__ = ["EventLines", "LiveTable", "NullProgress", "Plan", "Progress", "open_progress"]


def open_progress(plan: Plan, stream: TextIO | None = None) -> Progress:
    """A live table where `stream` (standard output) is a terminal, else one line per event."""
    stream = stream or sys.stdout
    console = Console(file=stream)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveTable(plan, console)
    return EventLines(plan, stream)


class EventLines(Quiet):
    """One line per event: for logs, pipes and schedulers."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self._plan = plan
        self._stream = stream
        self._ended = set(plan.ended)
        self._front: list[int] = []
        self._has_hinted = False

    def _line(self, text: str) -> None:
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._stream.flush()
        except OSError:  # the sweep outlives whoever read its output
            silence(self._stream)

    def started(self, trial: Trial) -> None:
        """See `Progress`."""
        name = f" {trial.name}" if trial.name else ""
        params = wording.settings(wording.short_params(trial.params))
        self._line(f"trial {trial.number}{name} started: {params}")

    def vitals(self, number: int, vitals: Vitals) -> None:
        """See `Progress`."""
        self._line(f"trial {number} measured: {wording.vitals_text(vitals)}")

    def progressed(self, number: int, episodes: int, successes: int) -> None:
        """Not a line: a log that grows with every episode is read by nobody."""

    def throughput(self, number: int, throughput: Throughput) -> None:
        """One line in the whole run, where something would play episodes faster."""
        hint = None if self._has_hinted else self._plan.hint(throughput)
        if hint is not None:
            self._has_hinted = True
            self._line(hint)

    def ended(self, number: int, result: TrialResult) -> None:
        """See `Progress`."""
        self._ended.add(number)
        self._line(
            f"trial {number} {wording.result_text(result)} [{len(self._ended)}/{self._plan.trials}]"
        )

    def paused(self, number: int, result: TrialResult) -> None:
        """See `Progress`."""
        self._line(f"trial {number} paused after {result.episodes} episodes")

    def died(self, number: int, text: str) -> None:
        """See `Progress`."""
        self._line(text)

    def front(self, front: Front) -> None:
        """A line when another set of trials is on the front."""
        numbers = [point.trial for point in front.members]
        if numbers == self._front:
            return
        self._front = numbers
        shown = [f"{point.trial} ({wording.in_short(point)})" for point in front.members]
        self._line(f"front: {' '.join(shown)}")

    def message(self, text: str) -> None:
        """See `Progress`."""
        self._line(text)

    def tick(self) -> None:
        """Nothing: a log has no clock."""
