"""The live view of a terminal: running trials, the front, counts and clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.table import Table
from rich.text import Text

from duqsweep.control.front import formats
from duqsweep.control.front.measures import SPEEDUP
from duqsweep.control.front.records import Front
from duqsweep.control.view import tables, wording
from duqsweep.control.view.estimate import Estimate
from duqsweep.control.view.progress import Plan
from duqsweep.result import ENDINGS, Throughput, TrialResult, Vitals
from duqsweep.spec import Trial

_REDRAWS_PER_S = 4
_FRONT_ROWS = 8  # the whole front is printed at the end


@dataclass
class _Running:
    trial: Trial
    since: float
    vitals: Vitals | None = None
    episodes: int = 0
    successes: int = 0
    throughput: Throughput | None = None


@dataclass
class LiveTable:
    """Redraws in place; results and messages scroll above it."""

    plan: Plan
    console: Console
    clock: Callable[[], float] = time.monotonic
    _running: dict[int, _Running] = field(default_factory=dict)
    _results: dict[int, TrialResult] = field(default_factory=dict)
    _front: Front | None = None
    _begun: float = 0.0
    _estimate: Estimate = field(init=False)
    _size: tuple[int, int] = (0, 0)
    _has_hinted: bool = False
    _live: Live | None = None

    def __post_init__(self) -> None:
        self._estimate = Estimate(self.plan, self.clock)

    def __enter__(self) -> LiveTable:
        """Take the terminal."""
        self._begun = self.clock()
        self._size = self.console.size
        self._live = Live(
            console=self.console,
            get_renderable=self.view,
            refresh_per_second=_REDRAWS_PER_S,
            transient=True,  # the final report follows
        )
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back, cursor and all, also on Ctrl-C."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def started(self, trial: Trial) -> None:
        """See `Progress`."""
        self._running[trial.number] = _Running(trial, self.clock())
        self._estimate.started(trial.number)

    def vitals(self, number: int, vitals: Vitals) -> None:
        """See `Progress`."""
        if number in self._running:
            self._running[number].vitals = vitals
        self._estimate.measured(number)

    def progressed(self, number: int, episodes: int, successes: int) -> None:
        """See `Progress`."""
        if number in self._running:
            self._running[number].episodes = episodes
            self._running[number].successes = successes
        self._estimate.progressed(number, episodes)

    def throughput(self, number: int, throughput: Throughput) -> None:
        """See `Progress`."""
        if number in self._running:
            self._running[number].throughput = throughput
        hint = None if self._has_hinted else self.plan.hint(throughput)
        if hint is not None:
            self._has_hinted = True
            self.console.print(Text(hint))

    def ended(self, number: int, result: TrialResult) -> None:
        """See `Progress`."""
        self._running.pop(number, None)
        self._estimate.left(number, ended=True)
        self._results[number] = result
        failed = result.outcome == "failed"
        text = Text(f"trial {number} {wording.result_text(result)}", style="red" if failed else "")
        self.console.print(text)

    def paused(self, number: int, result: TrialResult) -> None:
        """See `Progress`."""
        self._running.pop(number, None)
        self._estimate.left(number, ended=False)
        self.console.print(Text(f"trial {number} paused after {result.episodes} episodes"))

    def died(self, number: int, text: str) -> None:
        """See `Progress`."""
        self._running.pop(number, None)
        self._estimate.left(number, ended=False)
        self.console.print(Text(text))

    def front(self, front: Front) -> None:
        """See `Progress`."""
        self._front = front

    def message(self, text: str) -> None:
        """See `Progress`."""
        self.console.print(Text(text))

    def tick(self) -> None:
        """After a change of its size, clear the terminal: old lines have moved. Else nothing."""
        size = self.console.size
        if size != self._size:
            self._size = size
            self.console.control(Control.clear(), Control.home())

    def view(self) -> RenderableType:
        """What the terminal shows now."""
        parts: list[RenderableType] = [self._running_table()]
        if self._front and self._front.members:
            parts += ["", tables.front_table(self._front, _FRONT_ROWS), ""]
        parts.append(Text(self._status(), style="bold"))
        return Group(*parts)

    def _running_table(self) -> Table:
        each = self.plan.episodes_per_trial
        numbers = ["trial", *(["episodes", "success"] if each else []), SPEEDUP.column, "for"]
        table = tables.new_table(f"running: {self.plan.sweep}", numbers, ["settings"])
        for number, row in sorted(self._running.items()):
            rate = row.successes / row.episodes if row.episodes else None
            table.add_row(
                wording.label(number, row.trial.name),
                *([self._episodes(row), formats.percent(rate)] if each else []),
                self._speedup(row),
                formats.duration(self.clock() - row.since),
                self._settings(row.trial),
            )
        return table

    def _speedup(self, row: _Running) -> str:
        """The trial's speed-up, or what its worker does before that is known."""
        if row.vitals is None and not row.episodes:
            return wording.phase(self.plan.phase(row.trial.number))
        return formats.ratio(row.vitals.speedup if row.vitals else None)

    def _episodes(self, row: _Running) -> str:
        if self.plan.shared_episodes is not None:
            return str(row.episodes)
        return f"{row.episodes}/{self.plan.episodes_per_trial}"

    def _settings(self, trial: Trial) -> str:
        if self._front is None or not self._front.points:
            return wording.settings(wording.short_params(trial.params))
        return wording.telling_settings(trial.params, self._front)

    def _status(self) -> str:
        played = sum(result.episodes for result in self._results.values())
        played += sum(row.episodes for row in self._running.values())
        if self._front:  # also counts what earlier runs of this sweep played
            played = max(played, self._front.episodes)
        elapsed = self.clock() - self._begun
        if self.plan.shared_episodes is not None:
            return self._shared_status(played, elapsed)
        parts = [f"{self._done()} of {self.plan.trials} trials"]
        if self.plan.episodes_per_trial:
            parts += [f"{played:,} episodes", f"{self._saved():,} saved"]
        pace = wording.pace([row.throughput for row in self._running.values() if row.throughput])
        if pace:
            parts.append(pace)
        return " · ".join([*parts, *self._times(played, elapsed)])

    def _shared_status(self, played: int, elapsed: float) -> str:
        """Where the search shares the episodes out: how many of them all were played."""
        total = self.plan.shared_episodes or 0
        trials = max(len(self._front.points) if self._front else 0, len(self._running))
        parts = [f"{trials} trials", f"{played:,} of {total:,} episodes"]
        return " · ".join([*parts, *self._times(played, elapsed)])

    def _times(self, played: int, elapsed: float) -> list[str]:
        left_s = self._estimate.left_s(self._done(), played)
        left = [] if left_s is None else [wording.time_left(left_s)]
        return [f"{formats.duration(elapsed)} so far", *left]

    def _done(self) -> int:
        """Trials that are over, those of earlier runs of this sweep included."""
        if self._front is None:
            return len(self._results)
        over = sum(count for name, count in self._front.counts.items() if name in ENDINGS)
        return max(len(self._results), over)

    def _saved(self) -> int:
        """Episodes that ended trials did not need."""
        each = self.plan.episodes_per_trial
        return sum(max(0, each - result.episodes) for result in self._results.values())
