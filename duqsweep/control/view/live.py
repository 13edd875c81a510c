"""The output of a running sweep: a live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from duqsweep.control.front.records import Front
from duqsweep.control.view import wording
from duqsweep.control.view.console import open_console
from duqsweep.control.view.estimate import Estimate
from duqsweep.control.view.livetable import LiveTable
from duqsweep.control.view.progress import NullProgress, Plan, Progress, Quiet
from duqsweep.output import silence
from duqsweep.result import Throughput, TrialResult, Vitals
from duqsweep.spec import Trial

QUIET_S = 60.0  # after so long without a line comes one on what runs
QUIET_SHARE = 30  # and after a share of the time so far: a sweep of days is no flood of lines

__all__ = ["EventLines", "LiveTable", "NullProgress", "Plan", "Progress", "open_progress"]


def open_progress(plan: Plan, stream: TextIO | None = None) -> Progress:
    """A live table where `stream` (standard output) is a terminal, else one line per event."""
    stream = stream or sys.stdout
    console = open_console(stream)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveTable(plan, console)
    return EventLines(plan, stream)


class EventLines(Quiet):
    """One line per event: for logs, pipes and schedulers."""

    def __init__(
        self, plan: Plan, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan = plan
        self._stream = stream
        self._clock = clock
        self._begun_s = self._said_s = clock()
        self._estimate = Estimate(plan, clock)
        self._ended = set(plan.ended)
        self._running: dict[int, int | None] = {}  # trial → its episodes; None: not benchmarked
        self._played = 0  # by trials that run no more, and by earlier controllers
        self._front: list[int] = []
        self._has_hinted = False

    def _line(self, text: str) -> None:
        self._said_s = self._clock()
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._stream.flush()
        except OSError:  # the sweep outlives whoever read its output
            silence(self._stream)

    def started(self, trial: Trial) -> None:
        """See `Progress`."""
        name = f" {trial.name}" if trial.name else ""
        params = wording.settings(wording.short_params(trial.params))
        self._running[trial.number] = None
        self._estimate.started(trial.number)
        self._line(f"trial {trial.number}{name} started: {params}")

    def vitals(self, number: int, vitals: Vitals) -> None:
        """See `Progress`."""
        self._running[number] = self._running.get(number) or 0
        self._estimate.measured(number)
        self._line(f"trial {number} measured: {wording.vitals_text(vitals)}")

    def progressed(self, number: int, episodes: int, successes: int) -> None:
        """Not a line: a log that grows with every episode is read by nobody."""
        self._running[number] = episodes
        self._estimate.progressed(number, episodes)

    def throughput(self, number: int, throughput: Throughput) -> None:
        """One line in the whole run, where something would play episodes faster."""
        hint = None if self._has_hinted else self._plan.hint(throughput)
        if hint is not None:
            self._has_hinted = True
            self._line(hint)

    def ended(self, number: int, result: TrialResult) -> None:
        """See `Progress`."""
        self._ended.add(number)
        self._leave(number, ended=True)
        count = f"{len(self._ended)}/{self._plan.trials}"
        self._line(f"trial {number} {wording.result_text(result)} [{count}]{self._left()}")

    def paused(self, number: int, result: TrialResult) -> None:
        """See `Progress`."""
        self._leave(number, ended=False)
        self._line(f"trial {number} paused after {result.episodes} episodes")

    def died(self, number: int, text: str) -> None:
        """See `Progress`."""
        self._leave(number, ended=False)
        self._line(text)

    def front(self, front: Front) -> None:
        """A line when another set of trials is on the front."""
        now = sum(episodes or 0 for episodes in self._running.values())
        self._played = max(self._played, front.episodes - now)  # of earlier controllers too
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
        """A line on what runs, where there was none for a while."""
        now_s = self._clock()
        if now_s - self._said_s < max(QUIET_S, (now_s - self._begun_s) / QUIET_SHARE):
            return
        if self._running:
            trials = ", ".join(map(self._shown, sorted(self._running)))
            self._line(f"running: trial {trials}{self._left()}")

    def _shown(self, number: int) -> str:
        """E.g. `7 (12 of 60)`, `8 (compiling)`."""
        episodes, each = self._running[number], self._plan.episodes_per_trial
        if episodes is None or not each:
            return f"{number} ({wording.phase(self._plan.phase(number))})"
        of_each = "" if self._plan.shared_episodes is not None else f" of {each}"
        return f"{number} ({episodes}{of_each} episodes)"

    def _left(self) -> str:
        """`, about 5 min 00 s left`; empty while nothing says so."""
        played = self._played + sum(episodes or 0 for episodes in self._running.values())
        left_s = self._estimate.left_s(len(self._ended), played)
        return f", {wording.time_left(left_s)}" if left_s and round(left_s) else ""

    def _leave(self, number: int, ended: bool) -> None:
        self._played += self._running.pop(number, None) or 0
        self._estimate.left(number, ended)
