"""How much time a sweep needs still, from what was seen of it so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import mean

from duqsweep.control.view.progress import Plan


@dataclass
class _Seen:
    """A trial that runs."""

    since_s: float
    measured_s: float | None = None  # None: before its first episode
    begun_at: int | None = None  # episodes that it had before this run
    episodes: int = 0


@dataclass
class Estimate:
    """Follows the trials of one run of a controller; times are those of `clock`, in seconds.

    Work is counted in trials: a trial that ended is one, and one that runs is the share of it that
    is done, where measuring takes its share too. Where episodes are shared out, they are counted.
    """

    plan: Plan
    clock: Callable[[], float]
    _begun_s: float = field(init=False)
    _running: dict[int, _Seen] = field(default_factory=dict)
    _ended: set[int] = field(default_factory=set)
    _measuring_s: list[float] = field(default_factory=list)  # of each trial
    _played: int = 0  # episodes of this run that are not those of running trials

    def __post_init__(self) -> None:
        self._begun_s = self.clock()

    def started(self, trial: int) -> None:
        """A trial was submitted."""
        self._running[trial] = _Seen(self.clock())

    def measured(self, trial: int) -> None:
        """A trial's benchmark is done."""
        seen = self._running.get(trial)
        if seen is not None and seen.measured_s is None:
            seen.measured_s = self.clock()
            seen.begun_at = 0
            self._measuring_s.append(seen.measured_s - seen.since_s)

    def progressed(self, trial: int, episodes: int) -> None:
        """A trial has played so many episodes in all."""
        seen = self._running.get(trial)
        if seen is not None:
            if seen.begun_at is None:
                seen.begun_at = episodes - 1  # the one that has just ended is of this run
            seen.episodes = episodes

    def left(self, trial: int, ended: bool) -> None:
        """A trial runs no more; whether it has ended, or may be resumed."""
        seen = self._running.pop(trial, None)
        if seen is not None:
            self._played += self._played_of(seen)
        if ended:
            self._ended.add(trial)

    def left_s(self, over: int, played: int) -> float | None:
        """Seconds until the sweep is done; None while nothing says how long an episode takes.

        Before the first episode it is what was planned.

        Args:
            over: Trials that have ended, those of earlier runs included.
            played: Episodes of all trials, those of earlier runs included.
        """
        elapsed_s = self.clock() - self._begun_s
        if self.plan.shared_episodes is not None:
            now = self._played + sum(map(self._played_of, self._running.values()))
            left = max(0, self.plan.shared_episodes - played)
            return elapsed_s * left / now if now else self._expected_s(elapsed_s, over)
        shares = sum(map(self._share, self._running.values()))
        done = len(self._ended) + shares
        if not done:
            return self._expected_s(elapsed_s, over)
        return elapsed_s * max(0.0, self.plan.trials - over - shares) / done

    def _expected_s(self, elapsed_s: float, over: int) -> float | None:
        """What is left of the time that was planned, before anything was seen."""
        if self.plan.expected_s is None:
            return None
        open_share = max(0, self.plan.trials - over) / self.plan.trials
        return max(0.0, self.plan.expected_s * open_share - elapsed_s)

    def _share(self, seen: _Seen) -> float:
        """How much of a running trial is done, 0 to 1."""
        each = self.plan.episodes_per_trial
        if not each or not seen.episodes:
            return 0.0
        played = min(1.0, seen.episodes / each)
        if seen.measured_s is None or not self._measuring_s:
            return played
        episode_s = (self.clock() - seen.measured_s) / max(1, self._played_of(seen))
        measuring_s = mean(self._measuring_s)
        whole_s = measuring_s + each * episode_s
        return (measuring_s + played * each * episode_s) / whole_s if whole_s else played

    @staticmethod
    def _played_of(seen: _Seen) -> int:
        return 0 if seen.begun_at is None else seen.episodes - seen.begun_at
