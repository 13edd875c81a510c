"""The loop of a sweep: submit, poll, process, observe. It knows only protocols.

All state is on disk before each step. After a restart the loop re-attaches to running jobs and
resumes unfinished trials, so it may be killed at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from duqsweep import files
from duqsweep.assignment import Assignment, Ended, Failure, failure
from duqsweep.control.deaths import Deaths, Verdict
from duqsweep.control.trial_status import FINAL, State, TrialStatus

if TYPE_CHECKING:
    from duqsweep.control.dispatch.dispatcher import Dispatcher
    from duqsweep.control.protocols import EarlyStopping, FrontKeeper, Search, Tracker, Trials
    from duqsweep.control.trials.reader import TrialView
    from duqsweep.control.view.progress import Progress

TICK_S = 0.2
SETTLE_S = 5.0  # that the end waits for what the search still computes
STOPPED = "the sweep was asked to stop"
THEN: dict[Verdict, str] = {
    "again": "another job resumes it",
    "open": "it stays open, the next start resumes it",
    "final": "not retried",
}

# broken: every job died the same way before it got anywhere.
Ending = Literal["finished", "stopped", "broken"]


@dataclass(frozen=True)
class Parts:
    """What the loop connects."""

    search: Search
    stopping: EarlyStopping
    dispatcher: Dispatcher
    trials: Trials
    front: FrontKeeper
    progress: Progress
    tracker: Tracker


class Sweep:
    """One run of a sweep's controller."""

    def __init__(
        self, sweep_dir: Path, parts: Parts, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Nothing happens before `run`.

        Args:
            sweep_dir: The sweep's folder.
            parts: What the loop connects.
            sleep: Waits for so many seconds.
        """
        self._dir = sweep_dir
        self._search, self._stopping = parts.search, parts.stopping
        self._dispatcher = parts.dispatcher
        self._trials, self._front = parts.trials, parts.front
        self._progress, self._tracker = parts.progress, parts.tracker
        self._sleep = sleep
        self._views = {view.number: view for view in self._trials.read()}
        self._waiting: list[Assignment] = []  # their jobs died; they wait for a free place
        self._begun_at: dict[int, tuple[bool, int]] = {}  # what trials had when last submitted
        self._reattached: set[int] = set()
        # An earlier controller may have been killed before it wrote the front.
        self._front_is_old = any(view.result for view in self._views.values())
        self.deaths = Deaths(sweep_dir)

    def run(self) -> Ending:
        """Run until the search has nothing left, or someone asks the sweep to stop.

        1. Recover what an earlier controller left.
        2. Submit assignments while there is a free place.
        3. Observe running trials: report their progress, and prune.
        4. Poll the dispatcher, and process every assignment that has ended. A result that appears
           after its job was given up is processed too.
        5. Take in what the search has computed meanwhile, in a thread of its own.
        6. Bring front.json up to date, if that was not done a moment ago.
        7. Sleep, and repeat from 2.

        However it ends, front.json shows all trials that have ended.

        Raises:
            DispatchError: The launcher refuses jobs; running jobs continue.
        """
        try:
            return self._loop()
        finally:
            self._front_is_old |= self._search.poll(SETTLE_S)
            self._update_front(final=True)

    def _loop(self) -> Ending:
        self._recover()
        while not self._is_asked_to_stop():
            self._submit()
            if not self._dispatcher.pending() and not self._search.is_busy:
                return "finished"
            self._turn()
            if self.deaths.common:
                return "broken"
        self._wind_down()
        return "stopped"

    def _is_asked_to_stop(self) -> bool:
        return (self._dir / files.STOP).exists()

    def _turn(self) -> None:
        self._observe()
        for ended in self._dispatcher.poll():
            self._process(ended)
        self._take_in_late_results()
        self._front_is_old |= self._search.poll()
        self._update_front()
        self._progress.tick()
        self._sleep(TICK_S)

    def _wind_down(self) -> None:
        """Let every running trial finish its episode; the next start resumes them all."""
        for assignment in self._dispatcher.pending():
            self._dispatcher.stop(assignment.trial, STOPPED)
            if not self._is_pending(assignment.trial):  # withdrawn: no job had begun it
                self._set(assignment, "stopped", STOPPED)
        self._waiting.clear()
        while self._dispatcher.pending():
            self._turn()

    # 1. recover

    def _recover(self) -> None:
        """Take up running jobs, and process ends that no dispatcher will report again."""
        for assignment in self._dispatcher.reattach():
            self._reattached.add(assignment.trial)
            self._progress.message(f"trial {assignment.trial} still runs: re-attached")
        for view in list(self._views.values()):
            if view.status is None:
                continue
            assignment = Assignment(view.number, view.status.until_episode)
            is_pending, state = self._is_pending(view.number), view.status.state
            if state == "pruned" and is_pending:
                self._dispatcher.stop(view.number, view.status.cause)
            elif state == "pruned" and not _is_result_of(view, assignment):
                self._end_pruned(assignment)
            elif state not in ("queued", "running") or is_pending:
                continue
            elif _has_reached(view, assignment) or view.outcome == "failed":
                self._conclude(assignment)
            elif state == "running":
                self._set(assignment, "queued", "its job is gone")

    # 2. submit

    def _submit(self) -> None:
        while len(self._dispatcher.pending()) < self._dispatcher.capacity:
            pending = [*self._dispatcher.pending(), *self._waiting]
            assignment = self._waiting.pop(0) if self._waiting else self._search.next(pending)
            if assignment is None:
                return
            view = self._set(assignment, "queued", "it waits for a job")
            self._begun_at[view.number] = _reached(view)
            self._dispatcher.submit(assignment)
            self._set(assignment, "running", "a job has it")
            self._progress.started(view.trial)
            self._tracker.trial_changed(assignment.trial)

    # 3. observe

    def _observe(self) -> None:
        """Report what running trials have written since the last turn, and prune them."""
        for assignment in self._dispatcher.pending():
            before = self._views.get(assignment.trial)
            view = self._look(assignment.trial)
            if before is view:
                continue
            if view.vitals and not (before and before.vitals):
                self._front.measured(view)
                self._progress.vitals(view.number, view.vitals)
                self._tracker.trial_changed(view.number)
            if view.episodes:
                self._progress.progressed(view.number, len(view.episodes), view.counts.successes)
            if view.throughput:
                self._progress.throughput(view.number, view.throughput)
            self._search.observed(view)
            self._prune(assignment, view)

    def _prune(self, assignment: Assignment, view: TrialView) -> None:
        if _state(view) == "pruned" or _has_reached(view, assignment):
            return
        decision = self._stopping.decide(view)
        if decision is not None:
            self._set(assignment, "pruned", decision.cause)
            self._dispatcher.stop(view.number, decision.cause)
            if not self._is_pending(view.number):  # withdrawn: no job had begun it
                self._end_pruned(assignment)

    def _end_pruned(self, assignment: Assignment) -> None:
        """End a trial that was pruned and has no job; it may have been too late to prune it."""
        view = self._look(assignment.trial)
        if not _is_result_of(view, assignment):
            assert view.status is not None
            self._trials.write_result(view.number, "stopped", view.status.cause)
        self._conclude(assignment)

    # 4. process

    def _process(self, ended: Ended) -> None:
        """Decide what an assignment's end means for its trial."""
        assignment = ended.assignment
        view = self._look(assignment.trial)
        status = view.status
        if status is not None and assignment.until_episode < status.until_episode:
            # Reported once more after a restart: the trial has a later assignment, which the
            # controller may not have been able to submit.
            if status.state in ("queued", "running") and not self._is_pending(view.number):
                self._waiting.append(Assignment(view.number, status.until_episode))
            return
        if _state(view) == "pruned":
            self._end_pruned(assignment)
        elif _has_reached(view, assignment) or (
            ended.failure is None and _is_result_of(view, assignment)
        ):
            self._conclude(assignment)
        else:
            self._died(assignment, ended.failure or failure("lost", "it ended without a result"))

    def _died(self, assignment: Assignment, failure: Failure) -> None:
        """A job died: its assignment is queued, now or at the next start, or its trial failed."""
        number = assignment.trial
        view = self._views[number]
        began = _reached(view) != self._begun_at.get(number, (False, 0))
        is_old = number in self._reattached
        self._reattached.discard(number)
        verdict = self.deaths.classify(assignment, failure, len(view.episodes), began, is_old)
        summary = failure.message.partition("\n")[0]
        text = f"its job ended ({failure.kind}): {summary}; {THEN[verdict]}"
        self._progress.died(number, f"trial {number}: {text}")
        if verdict == "final":
            if not _has_reached(self._look(number), assignment):  # a result that came late stays
                error = (failure.kind, failure.message)
                self._trials.write_result(number, "failed", failure.message, error)
            self._conclude(assignment)
            return
        self._set(assignment, "queued", text)
        if verdict == "again":
            self._waiting.append(assignment)

    def _take_in_late_results(self) -> None:
        """Conclude trials whose jobs were given up, and whose result has appeared since."""
        for number in list(self.deaths.open):
            view = self._look(number)
            assert view.status is not None
            assignment = Assignment(number, view.status.until_episode)
            if _has_reached(view, assignment) and not self._is_pending(number):
                del self.deaths.open[number]
                self._progress.message(f"trial {number}: its result has appeared after all")
                self._conclude(assignment)

    def _conclude(self, assignment: Assignment) -> None:
        """A trial has a result: give it the state that follows, and tell everyone."""
        view = self._look(assignment.trial)
        assert view.result is not None
        state, cause = self._state_after(view)
        view = self._set(assignment, state, cause)
        assert view.result is not None
        if state == "stopped":
            text = f"trial {view.number} stopped after {len(view.episodes)} episodes"
            self._progress.message(text)
            return
        self._front.measured(view)
        if state in FINAL:
            self._search.ended(view)
            self._progress.ended(view.number, view.result)
        else:
            self._search.observed(view)
            self._progress.paused(view.number, view.result)
        self._tracker.trial_changed(view.number)
        self._front_is_old = True

    def _state_after(self, view: TrialView) -> tuple[State, str]:
        """The state of a trial whose assignment has ended with a result, and its cause."""
        assert view.result is not None
        if view.result.outcome == "failed":
            return "failed", view.result.reason
        if view.result.outcome == "complete":
            return "complete" if self._search.is_final(view) else "paused", view.result.reason
        if view.status is not None and view.status.state == "pruned":
            return "pruned", view.status.cause
        decision = self._stopping.decide(view)  # the worker ends a trial below `min_speedup`
        if decision is not None:
            return "pruned", decision.cause
        return "stopped", view.result.reason

    # 6. front

    def _update_front(self, final: bool = False) -> None:
        """Bring front.json up to date, unless nothing has ended since or it is too soon."""
        if not self._front_is_old:
            return
        views = [self._views[number] for number in sorted(self._views)]
        front = self._front.update(views, final)
        if front is not None:
            self._front_is_old = False
            self._progress.front(front)
            self._tracker.front_changed(front)

    # common

    def _is_pending(self, number: int) -> bool:
        return any(assignment.trial == number for assignment in self._dispatcher.pending())

    def _look(self, number: int) -> TrialView:
        """The trial as it is now."""
        return self._note(self._trials.view(number))

    def _set(self, assignment: Assignment, state: State, cause: str) -> TrialView:
        """Write a trial's status."""
        status = TrialStatus(state, cause, assignment.until_episode)
        return self._note(self._trials.set_status(assignment.trial, status))

    def _note(self, view: TrialView) -> TrialView:
        before = self._views.get(view.number)
        self._views[view.number] = view
        if before is not None and _reached(view) != _reached(before):
            self.deaths.progress()
        return view


def _state(view: TrialView) -> State | None:
    return None if view.status is None else view.status.state


def _reached(view: TrialView) -> tuple[bool, int]:
    """How far a trial is: whether it is benchmarked, and the episodes that it has played."""
    return view.vitals is not None, len(view.episodes)


def _has_reached(view: TrialView, assignment: Assignment) -> bool:
    """Whether a trial is where its assignment ends, however its job ended after that."""
    result = view.result
    return (
        result is not None
        and result.outcome == "complete"
        and result.episodes >= assignment.until_episode
    )


def _is_result_of(view: TrialView, assignment: Assignment) -> bool:
    """Whether the trial has a result that is not that of an earlier, shorter assignment."""
    if view.result is None:
        return False
    return view.result.outcome != "complete" or _has_reached(view, assignment)
