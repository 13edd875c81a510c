"""How fast a trial's episodes are played, and what they wait for."""

from __future__ import annotations

import time

from duqsweep.result import Throughput
from duqsweep.worker.episode import Rollout


class Meter:
    """Counts episodes while they are played; other threads may read it."""

    def __init__(self, simulators: int) -> None:
        """Begin at zero, now."""
        self._simulators = simulators
        self._started = time.perf_counter()
        self._ended = Throughput(simulators)
        self._running: tuple[Rollout, ...] = ()

    def begin(self, rollout: Rollout) -> None:
        """An episode begins."""
        self._running = (*self._running, rollout)

    def end(self, rollout: Rollout) -> None:
        """An episode is over."""
        self._ended = _added(self._ended, rollout, episodes=1)
        self._running = tuple(other for other in self._running if other is not rollout)

    def read(self) -> Throughput:
        """Everything so far, the part of unfinished episodes included."""
        total = self._ended
        for rollout in self._running:
            total = _added(total, rollout, episodes=0)
        return total.after(time.perf_counter() - self._started)


def _added(total: Throughput, rollout: Rollout, episodes: int) -> Throughput:
    return Throughput(
        total.simulators,
        wall_s=total.wall_s,
        episodes=total.episodes + episodes,
        steps=total.steps + rollout.steps,
        calls=total.calls + rollout.calls,
        policy_s=total.policy_s + rollout.policy_s,
        sim_s=total.sim_s + rollout.sim_s,
    )
