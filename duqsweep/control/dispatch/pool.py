"""A pool of workers, each a job: submits them and hands them assignments."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep.assignment import Assignment, Ended, Failure
from duqsweep.control.dispatch.jobfile import note_job, note_submission
from duqsweep.control.dispatch.launch import SIGNAL_S, Entry, Launcher, SilentError
from duqsweep.control.dispatch.member import Worker, cause_of_end
from duqsweep.errors import ConfigError, DispatchError
from duqsweep.files import STOP, WORKERS_DIR, trial_dir, write_text
from duqsweep.mailbox import Job, Mailbox, Terms
from duqsweep.worker.serve import serve

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

PLACE_AGAIN_S = 10.0  # after a launcher refused

log = logging.getLogger(__name__)


class SubmititDispatcher:
    """Assignments through mailboxes to workers that submitit starts."""

    def __init__(
        self, launcher: Launcher, config: LauncherConfig, sweep_dir: Path, entry: Entry = serve
    ) -> None:
        """Raises ConfigError for a folder that no job can be given."""
        self.launcher = launcher
        self.config = config
        self.sweep_dir = sweep_dir.resolve()
        if "%" in str(self.sweep_dir):
            raise ConfigError(
                f"dir must not hold %, which SLURM and submitit read as %j, the number of a job: "
                f"got {self.sweep_dir}; launcher=inline takes any"
            )
        self.entry = entry
        self.capacity = launcher.capacity
        self._workers: dict[str, Worker] = {}
        self._homeless: list[Assignment] = []  # no worker has them yet, or theirs left before
        self._told: list[tuple[Mailbox, int]] = []
        self._next_look = self._next_placing = 0.0  # monotonic

    def submit(self, assignment: Assignment) -> None:
        """Hand it to a free worker, or to a new one; it waits while no launcher answers."""
        pending = self.pending()
        if len(pending) >= self.capacity:
            raise DispatchError(f"{self.capacity} assignments may run at once, and as many do")
        if any(assignment.trial == other.trial for other in pending):
            raise DispatchError(f"trial {assignment.trial} is being evaluated already")
        try:
            self._place(assignment)
        except SilentError as error:
            self._let_wait(assignment, error)

    def pending(self) -> list[Assignment]:
        """Submitted or re-attached, and not yet told as ended."""
        given = [worker.assignment for worker in self._workers.values()]
        return [*self._homeless, *(assignment for assignment in given if assignment is not None)]

    def reattach(self) -> list[Assignment]:
        """Adopt the workers of an earlier life."""
        for folder in sorted((self.sweep_dir / WORKERS_DIR).glob("*")):
            mailbox = Mailbox(folder)
            if folder.name in self._workers or mailbox.terms() is None:
                continue
            numbers = mailbox.open_numbers()
            if mailbox.asked_to_leave():  # `close` ended it: nothing failed
                for number in numbers:
                    mailbox.settle(number)
                continue
            if not numbers and mailbox.left() is not None:
                continue
            worker = self._workers[folder.name] = Worker(mailbox)
            if numbers:
                worker.number = numbers[-1]
                worker.assignment = mailbox.assignment(worker.number)
        self._look()
        return self.pending()

    def poll(self) -> list[Ended]:
        """What has ended since the last call."""
        for mailbox, number in self._told:
            mailbox.settle(number)
        self._told.clear()
        if time.monotonic() >= self._next_look:
            self._look()
        ended = [end for worker in list(self._workers.values()) for end in self._ends(worker)]
        if time.monotonic() >= self._next_placing:
            homeless, self._homeless = self._homeless, []
            for assignment in homeless:
                self._place_again(assignment)
        return ended

    def stop(self, trial: int, reason: str) -> None:
        """Ask the trial to end after its current episode, or withdraw it."""
        write_text(trial_dir(self.sweep_dir, trial) / STOP, reason)
        self._homeless = [other for other in self._homeless if other.trial != trial]
        for worker in self._workers.values():
            given = worker.assignment
            if given and given.trial == trial and worker.mailbox.take_back(worker.number):
                worker.assignment = None

    def close(self, end_jobs: bool) -> None:
        """Leave; with `end_jobs` no worker runs on, or on SLURM its end is ordered."""
        for mailbox, number in self._told:
            mailbox.settle(number)
        self._told.clear()
        if end_jobs:
            mailboxes = [worker.mailbox for worker in self._workers.values()]
            for mailbox in mailboxes:
                mailbox.ask_to_leave()
            self.launcher.cancel(mailboxes)
        self._workers.clear()

    def _place(self, assignment: Assignment) -> None:
        for worker in self._workers.values():
            if worker.is_free(self.config.reuse):
                self._give(worker, assignment)
                return
        worker = self._new_worker()
        self._give(worker, assignment)
        try:
            job_id = self.launcher.start(worker.mailbox, self.entry)
        except DispatchError:
            worker.mailbox.take_back(worker.number)
            worker.mailbox.ask_to_leave()
            del self._workers[worker.id]
            raise
        worker.mailbox.set_job(Job(job_id, time.time()))
        note_job(self.sweep_dir, assignment.trial, job_id)
        log.info("worker %s is %s job %s", worker.id, self.launcher.name, job_id)

    def _place_again(self, assignment: Assignment) -> None:
        try:
            self._place(assignment)
        except DispatchError as error:
            self._let_wait(assignment, error)

    def _let_wait(self, assignment: Assignment, error: DispatchError) -> None:
        log.warning("trial %d waits for a worker: %s", assignment.trial, error)
        self._homeless.append(assignment)
        self._next_placing = time.monotonic() + PLACE_AGAIN_S

    def _new_worker(self) -> Worker:
        made = len(list((self.sweep_dir / WORKERS_DIR).glob("*"))) + 1
        worker_id = f"{made:04d}-{secrets.token_hex(3)}"
        mailbox = Mailbox(self.sweep_dir / WORKERS_DIR / worker_id)
        name = f"duqsweep-{self.sweep_dir.name}-{worker_id}"
        limits = (self.config.idle_s, self.config.timeout_min, SIGNAL_S, self.config.reuse)
        mailbox.create(Terms(worker_id, name, *limits, time.time(), socket.gethostname()))
        worker = self._workers[worker_id] = Worker(mailbox)
        return worker

    def _give(self, worker: Worker, assignment: Assignment) -> None:
        worker.number += 1
        worker.assignment = assignment
        job = worker.mailbox.job()
        note_submission(
            self.sweep_dir,
            assignment,
            self.launcher.name,
            worker.id,
            worker.number,
            job.job_id if job else None,
        )
        worker.mailbox.put(worker.number, assignment)

    def _look(self) -> None:
        self._next_look = time.monotonic() + self.launcher.period_s
        watched = {w.mailbox.folder: w for w in self._workers.values() if w.job_end is None}
        if not watched:
            return
        views = self.launcher.views([worker.mailbox for worker in watched.values()])
        for folder, view in views.items():
            if view.ended:
                watched[folder].job_end = view

    def _ends(self, worker: Worker) -> list[Ended]:
        """How the worker's assignment ended, if it has; forgets a worker that is gone."""
        # Asked before the outcome is read: what a gone worker wrote is then there to be read.
        reason = worker.mailbox.left()
        gone = reason is not None or worker.job_end is not None
        if worker.assignment is None:
            if gone:
                del self._workers[worker.id]
            return []
        outcome = worker.mailbox.outcome(worker.number)
        if outcome is not None:
            return [self._tell(worker, outcome.failure)]
        if not gone:
            return []
        taken_back = worker.mailbox.take_back(worker.number)
        if reason is not None and taken_back:
            self._homeless.append(worker.assignment)
            del self._workers[worker.id]
            return []
        cause = cause_of_end(worker, reason)
        return [] if cause is None else [self._tell(worker, cause)]

    def _tell(self, worker: Worker, cause: Failure | None) -> Ended:
        assert worker.assignment is not None
        ended = Ended(worker.assignment, cause)
        worker.assignment = None
        self._told.append((worker.mailbox, worker.number))
        return ended
