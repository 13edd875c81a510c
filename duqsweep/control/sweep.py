"""The loop of a sweep: assign, wait, tell, show. It knows only protocols.

Everything that must survive is in files before the loop goes on, so it may be killed at any moment:
the next life re-attaches to jobs that still run and takes up trials that were asked and not told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, Protocol

from duqsweep import files
from duqsweep.assignment import Assignment, Ended, Failure, failure
from duqsweep.control.deaths import Deaths, Verdict
from duqsweep.control.dispatch.dispatcher import Dispatcher
from duqsweep.control.front.content import front_content
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.reference import ensure_reference
from duqsweep.control.front.trials import TrialReader, TrialView
from duqsweep.control.view.live import Progress
from duqsweep.worker.summary import summarise

TICK_S = 0.2
THEN: dict[Verdict, str] = {
    "again": "another job resumes it",
    "open": "it stays open, the next start resumes it",
    "final": "not retried",
}

# broken: every job died the same way before it got anywhere.
Ending = Literal["finished", "stopped", "broken"]


class Search(Protocol):
    """Decides what is worth evaluating next."""

    def next(self, pending: Collection[int]) -> Assignment | None:
        """The next assignment; None while there is nothing to do until something pending ends.

        Trials that an earlier life asked and did not tell come first. The trial's spec.json is
        written.

        Args:
            pending: Numbers of the trials that run now.
        """

    def ended(self, view: TrialView) -> None:
        """A trial has a result: remember it for good."""

    def ruled_out(self, view: TrialView) -> str | None:
        """Why a running trial is worth no further episode; None while it is."""


class Tracker(Protocol):
    """Mirrors the sweep elsewhere; never raises and never waits."""

    def trial_changed(self, number: int) -> None:
        """Files of a trial changed."""

    def front_changed(self) -> None:
        """front.json changed."""


class Sweep:
    """One life of a sweep's controller."""

    def __init__(
        self,
        sweep_dir: Path,
        objectives: Sequence[Objective],
        search: Search,
        dispatcher: Dispatcher,
        progress: Progress,
        tracker: Tracker,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing happens before `run`."""
        self._dir = sweep_dir
        self._objectives = objectives
        self._search = search
        self._dispatcher = dispatcher
        self._progress = progress
        self._tracker = tracker
        self._sleep = sleep
        self._reader = TrialReader(sweep_dir)
        self._views = {view.number: view for view in self._reader.read()}
        self._again: list[Assignment] = []  # their jobs died; they wait for a free place
        self._ruled_out: set[int] = set()  # asked to stop because of what is known of them
        self._begun_at: dict[int, tuple[bool, int]] = {}  # what trials had when last submitted
        self._reattached: set[int] = set()
        self.deaths = Deaths(sweep_dir)

    def run(self) -> Ending:
        """Go on until the search has nothing left, or someone asks the sweep to stop.

        Raises:
            DispatchError: The launcher refuses jobs; what runs goes on.
        """
        for assignment in self._dispatcher.reattach():
            self._reattached.add(assignment.trial)
            self._progress.message(f"trial {assignment.trial} still runs: re-attached")
        while not self._told_to_stop():
            self._assign()
            if not self._dispatcher.pending():
                return "finished"
            self._turn()
            if self.deaths.common:
                return "broken"
        self._wind_down()
        return "stopped"

    def _told_to_stop(self) -> bool:
        return (self._dir / files.STOP).exists()

    def _wind_down(self) -> None:
        """Let every running trial finish its episode; the next life takes them up again."""
        for assignment in self._dispatcher.pending():
            self._dispatcher.stop(assignment.trial, "the sweep was asked to stop")
        self._again.clear()
        while self._dispatcher.pending():
            self._turn()

    def _turn(self) -> None:
        self._show()
        for ended in self._dispatcher.poll():
            self._collect(ended)
        self._progress.tick()
        self._sleep(TICK_S)

    def _assign(self) -> None:
        while len(self._dispatcher.pending()) < self._dispatcher.capacity:
            running = {assignment.trial for assignment in self._dispatcher.pending()}
            waiting = {assignment.trial for assignment in self._again}
            assignment = self._again.pop(0) if self._again else self._search.next(running | waiting)
            if assignment is None:
                return
            view = self._look(assignment.trial)
            self._begun_at[view.number] = _reached(view)
            self._dispatcher.submit(assignment)
            self._progress.started(view.trial)
            self._tracker.trial_changed(assignment.trial)

    def _look(self, number: int) -> TrialView:
        before = self._views.get(number)
        view = self._views[number] = self._reader.view(number)
        if before is not None and _reached(view) != _reached(before):
            self.deaths.progress()
        return view

    def _show(self) -> None:
        """Tell the watchers what running trials have written since the last turn."""
        for assignment in self._dispatcher.pending():
            before = self._views.get(assignment.trial)
            view = self._look(assignment.trial)
            if before is view:
                continue
            if view.vitals and not (before and before.vitals):
                ensure_reference(self._dir, [view])
                self._progress.vitals(view.number, view.vitals)
                self._tracker.trial_changed(view.number)
            if view.episodes:
                self._progress.progressed(view.number, len(view.episodes), view.counts[0])
            self._rule_out(view)

    def _rule_out(self, view: TrialView) -> None:
        if view.result or view.number in self._ruled_out:
            return
        reason = self._search.ruled_out(view)
        if reason:
            self._ruled_out.add(view.number)
            self._dispatcher.stop(view.number, reason)

    def _collect(self, ended: Ended) -> None:
        number = ended.assignment.trial
        view = self._look(number)
        if ended.failure is not None and not _has_reached(view, ended.assignment):
            if self._judge(ended.assignment, ended.failure, view) != "final":
                return
            view = self._look(number)
            if not _has_reached(view, ended.assignment):  # a result that came late stays
                self._give_up(number, ended.failure)
                view = self._look(number)
        if view.result is None:
            self._collect(Ended(ended.assignment, failure("lost", "it ended without a result")))
        elif view.outcome == "stopped" and self._is_to_go_on(number):
            self._progress.message(f"trial {number} stopped after {len(view.episodes)} episodes")
        else:
            self._tell(view)

    def _is_to_go_on(self, number: int) -> bool:
        """Whether a stopped trial was asked to stop for the sweep's sake and not for its own."""
        asked = (files.trial_dir(self._dir, number) / files.STOP).exists()
        return asked and number not in self._ruled_out

    def _judge(self, assignment: Assignment, failure: Failure, view: TrialView) -> Verdict:
        """What becomes of a trial whose job died; its assignment may be queued again."""
        number = assignment.trial
        began = _reached(view) != self._begun_at.get(number, (False, 0))
        is_old = number in self._reattached
        self._reattached.discard(number)
        verdict = self.deaths.judge(assignment, failure, len(view.episodes), began, is_old)
        if verdict == "again":
            self._again.append(assignment)
        summary = failure.message.partition("\n")[0]
        text = f"trial {number}: its job ended ({failure.kind}): {summary}; {THEN[verdict]}"
        self._progress.died(number, text)
        return verdict

    def _give_up(self, number: int, failure: Failure) -> None:
        """Write the result that the dead job could not."""
        view = self._look(number)
        result = summarise(
            view.episodes,
            view.vitals,
            view.trial.spec.protocol,
            "failed",
            failure.message,
            (failure.kind, failure.message),
        )
        files.write_json(files.trial_dir(self._dir, number) / files.RESULT_JSON, result.to_json())

    def _tell(self, view: TrialView) -> None:
        assert view.result is not None
        ensure_reference(self._dir, [view])
        self._search.ended(view)
        self._progress.ended(view.number, view.result)
        self._tracker.trial_changed(view.number)
        views = [self._views[number] for number in sorted(self._views)]
        content = front_content(self._dir, self._objectives, views)
        files.write_json(self._dir / files.FRONT_JSON, content)
        self._progress.front(content)
        self._tracker.front_changed()


def _reached(view: TrialView) -> tuple[bool, int]:
    """How far a trial is: whether it is benchmarked, and the episodes that it has walked."""
    return view.vitals is not None, len(view.episodes)


def _has_reached(view: TrialView, assignment: Assignment) -> bool:
    """Whether a trial is where its assignment ends, whatever befell the job afterwards."""
    result = view.result
    return (
        result is not None
        and result.outcome == "complete"
        and result.episodes >= assignment.until_episode
    )
