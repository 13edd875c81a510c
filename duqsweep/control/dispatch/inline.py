"""Evaluates in this process, one assignment at a time, inside `poll`: for tests and debugging.

Only simulators have processes of their own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

from duqsweep.assignment import Assignment, Ended
from duqsweep.control.dispatch.devices import take_device
from duqsweep.control.dispatch.jobfile import note_submission
from duqsweep.errors import DispatchError
from duqsweep.worker.child import Evaluator, OpenEvaluator, broken, open_evaluator


class InlineDispatcher:
    """A dispatcher without jobs: nothing survives this process, and a crash takes it along."""

    capacity = 1

    def __init__(self, sweep_dir: Path, opener: OpenEvaluator = open_evaluator) -> None:
        self.sweep_dir = sweep_dir
        self._opener = opener
        self._evaluator: Evaluator | None = None
        self._queue: deque[Assignment] = deque()
        self._part = ""

    def turn_to(self, part: str) -> None:
        """See `Dispatcher`."""
        self._part = part

    def submit(self, assignment: Assignment) -> None:
        """Keep it for the next poll."""
        if len(self._queue) >= self.capacity:
            raise DispatchError(f"{self.capacity} assignment may run at once, and one does")
        assignment = replace(assignment, part=self._part)
        note_submission(self.sweep_dir, assignment, "inline", None, 0, None)
        self._queue.append(assignment)

    def pending(self) -> list[Assignment]:
        """The submitted one."""
        return list(self._queue)

    def reattach(self) -> list[Assignment]:
        """Nothing outlives this process."""
        return []

    def poll(self) -> list[Ended]:
        """Evaluate the submitted assignment to its end."""
        if not self._queue:
            return []
        assignment = self._queue[0]
        folder = assignment.folder(self.sweep_dir)
        failure = None
        try:
            if self._evaluator is None:
                take_device()
                self._evaluator = self._opener()
            self._evaluator(folder, assignment.until_episode)
        except Exception as error:
            failure = broken(folder, error)
        self._queue.popleft()
        return [Ended(assignment, failure)]

    def stop(self, trial: int, reason: str) -> None:
        """Withdraw the trial: it cannot have begun."""
        self._queue = deque(other for other in self._queue if other.trial != trial)

    def close(self, end_jobs: bool) -> int:
        """Forget what was not begun; there are no workers."""
        self._queue.clear()
        return 0
