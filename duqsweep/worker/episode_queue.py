"""The episodes that a trial has yet to play, and which of them a free simulator plays next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from duqsweep.spec import LedgerEntry
from duqsweep.worker.remote_simulator import Simulator

Attempt = tuple[LedgerEntry, int]  # the entry, and the number of the attempt


class EpisodeQueue:
    """Ledger order, but for this: a simulator prefers tasks that it has already built.

    Building a task of an official suite takes 1 to 2 s of CPU time, about as long as 300 control
    steps. Only the first `window` entries are looked at, so that what has been played at any moment
    is spread over all tasks.
    """

    def __init__(self, attempts: Sequence[Attempt], window: int) -> None:
        """Queue `attempts`, in ledger order."""
        self._waiting = deque(attempts)
        self._window = window

    def __len__(self) -> int:
        return len(self._waiting)

    def again(self, attempt: Attempt) -> None:
        """Play this one before all others."""
        self._waiting.appendleft(attempt)

    def take(self, simulator: Simulator, all_simulators: Sequence[Simulator]) -> Attempt:
        """The next episode for `simulator`; something must wait.

        The first whose task it has built; else the first whose task no simulator has; else the
        first.
        """
        near = [self._waiting[i] for i in range(min(self._window, len(self._waiting)))]
        chosen = next((item for item in near if simulator.holds(item[0])), None)
        if chosen is None:
            chosen = next(
                (
                    item
                    for item in near
                    if not any(other.holds(item[0]) for other in all_simulators)
                ),
                near[0],
            )
        self._waiting.remove(chosen)
        return chosen
