"""A pool of workers, each a job: submits them and hands them assignments."""

from __future__ import annotations

import logging
import secrets
import time
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep.assignment import Assignment, Ended, Failure, failure
from duqsweep.background import in_background
from duqsweep.control.dispatch.jobfile import note_job, note_submission
from duqsweep.control.dispatch.launch import Entry, JobView, Launcher, SubmissionError, check_path
from duqsweep.control.dispatch.member import (
    Worker,
    cause_of_end,
    is_visible,
    new_mailbox,
    own_mailboxes,
    promises_outcome,
)
from duqsweep.control.dispatch.simulators import simulators_per_worker
from duqsweep.errors import ConfigError, DispatchError
from duqsweep.files import STOP, TRIAL_LOCK, WORKERS_DIR, trial_dir, write_text
from duqsweep.locking import is_locked
from duqsweep.mailbox import Job, Mailbox
from duqsweep.worker.serve import serve

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

PATIENCE_S = 1.0  # the loop waits so long for a submission, which mostly takes a tenth of it
TRY_S = 0.5  # between two attempts to place what waits
BACK_OFF_S = 10.0  # after a refused submission; doubles with each up to the next constant
BACK_OFF_MAX_S = 300.0
UNCLEAR_S = 20.0  # a job may appear so long after a submission that nobody confirmed
CANCEL_S = 120.0  # a job that hangs is gone, or cannot be ended, after that

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
        check_path(self.sweep_dir)
        self.entry = entry
        self._part = ""  # see `turn_to`
        self._workers: dict[str, Worker] = {}
        self._unplaced: list[Assignment] = []  # no worker has them yet, or theirs left before
        self._told: list[tuple[Mailbox, int]] = []
        self._next_look = self._next_start = self._next_try = 0.0  # monotonic
        self._look_call: Future[dict[Path, JobView]] | None = None
        self._start_call: tuple[Worker, Future[str]] | None = None
        self._back_off_s = BACK_OFF_S
        self._is_refused = False  # the last submission was, and the user knows
        self._is_proven = False  # the launcher has taken such a job
        self._locked_since: dict[Path, float] = {}  # trial's folder → monotonic

    def check(self) -> None:
        """Ask whether such jobs could ever run, unless some are there to be re-attached.

        Raises:
            ConfigError: They could not.
            DispatchError: Nobody answers.
        """
        boxes = own_mailboxes(self.sweep_dir)
        if all(box.worker_exit() is not None or box.asked_to_leave() for box in boxes):
            self.launcher.check()

    @property
    def capacity(self) -> int:
        """See `Dispatcher`."""
        return self.launcher.capacity - len(self._given()) + len(self.pending())

    def turn_to(self, part: str) -> None:
        """See `Dispatcher`."""
        self._part = part

    def submit(self, assignment: Assignment) -> None:
        """Hand it to a free worker, or to a new one; it waits while no launcher takes jobs."""
        assignment = replace(assignment, part=self._part)
        pending = self.pending()
        if len(pending) >= self.capacity:
            raise DispatchError(f"{self.capacity} assignments may run at once, and as many do")
        if any(self._is_of(other, assignment.trial) for other in pending):
            raise DispatchError(f"trial {assignment.trial} is being evaluated already")
        self._place(assignment)

    def pending(self) -> list[Assignment]:
        """Submitted or re-attached, and not yet reported as ended."""
        return [assignment for assignment in self._given() if assignment.part == self._part]

    def reattach(self) -> list[Assignment]:
        """Adopt the workers of an earlier controller."""
        for mailbox in own_mailboxes(self.sweep_dir):
            if mailbox.folder.name in self._workers:
                continue
            numbers = mailbox.open_numbers()
            if mailbox.asked_to_leave():  # `close` ended it: nothing failed
                for number in numbers:
                    mailbox.acknowledge(number)
                continue
            if not numbers and mailbox.worker_exit() is not None:
                continue
            worker = self._workers[mailbox.folder.name] = self._worker(mailbox)
            if numbers:
                worker.number = numbers[-1]
                worker.assignment = mailbox.assignment(worker.number)
                if worker.assignment is None:  # damaged: its trial is queued again
                    mailbox.acknowledge(worker.number)
        self._look()
        return self.pending()

    def poll(self) -> list[Ended]:
        """What has ended since the last call."""
        self._acknowledge()
        self._look()
        self._note_start()
        ended = [end for worker in list(self._workers.values()) for end in self._ends(worker)]
        for worker in list(self._workers.values()):
            self._care_for(worker)
        self._share()
        self._place_unplaced()
        return [end for end in ended if end.assignment.part == self._part]

    def stop(self, trial: int, reason: str) -> None:
        """Ask the trial to end after its current episode, or withdraw it."""
        write_text(trial_dir(self.sweep_dir / self._part, trial) / STOP, reason)
        self._unplaced = [other for other in self._unplaced if not self._is_of(other, trial)]
        for worker in self._workers.values():
            given = worker.assignment
            if given is None or not self._is_of(given, trial):
                continue
            if worker.mailbox.take_back(worker.number):
                worker.assignment = None

    def close(self, end_jobs: bool) -> int:
        """Leave; with `end_jobs` no worker continues, or on SLURM its end is ordered.

        Returns:
            The number of workers that were there.
        """
        self._acknowledge()
        if self._start_call is not None:
            wait([self._start_call[1]], PATIENCE_S)
            self._note_start()
        if end_jobs:
            mailboxes = [worker.mailbox for worker in self._workers.values()]
            for mailbox in mailboxes:
                mailbox.ask_to_leave()
            self.launcher.cancel(mailboxes)
        there = len(self._workers)
        self._workers.clear()
        return there

    def _acknowledge(self) -> None:
        for mailbox, number in self._told:
            mailbox.acknowledge(number)
        self._told.clear()

    def _worker(self, mailbox: Mailbox) -> Worker:
        return Worker(mailbox, self.config.hang_min)

    def _given(self) -> list[Assignment]:
        """Those of all parts that have not ended."""
        given = [worker.assignment for worker in self._workers.values()]
        return [*self._unplaced, *(assignment for assignment in given if assignment is not None)]

    def _is_of(self, assignment: Assignment, trial: int) -> bool:
        return (assignment.part, assignment.trial) == (self._part, trial)

    # Placing assignments

    def _place(self, assignment: Assignment) -> None:
        if self._is_evaluated(assignment):
            self._unplaced.append(assignment)
            return
        reuse = self.config.reuse
        workers = sorted(self._workers.values(), key=lambda worker: not worker.has_begun)
        free = next((worker for worker in workers if worker.is_free(reuse)), None)
        if free is not None:
            self._give(free, assignment)
            return
        if self._start_call is not None or time.monotonic() < self._next_start:
            self._unplaced.append(assignment)
            return
        worker = self._new_worker()
        self._give(worker, assignment)
        call = in_background(lambda: self.launcher.start(worker.mailbox, self.entry))
        self._start_call = (worker, call)
        wait([call], PATIENCE_S)
        self._note_start()

    def _note_start(self) -> None:
        """Take in the answer to a submission, if there is one."""
        if self._start_call is None or not self._start_call[1].done():
            return
        worker, call = self._start_call
        self._start_call = None
        try:
            job_id = call.result()
        except SubmissionError as error:
            self._refused(worker, error)
            return
        self._is_refused, self._back_off_s = False, BACK_OFF_S
        self._taken(worker, job_id)

    def _taken(self, worker: Worker, job_id: str) -> None:
        self._is_proven = True
        worker.mailbox.set_job(Job(job_id, time.time()))
        if worker.assignment is not None:
            note_job(worker.assignment.folder(self.sweep_dir), job_id)
        log.info("worker %s is %s job %s", worker.id, self.launcher.name, job_id)

    def _refused(self, worker: Worker, error: SubmissionError) -> None:
        """Wait and ask again, unless there is no reason to believe that it could ever be taken."""
        if not error.unclear:
            self._withdraw(worker)
        if error.is_final and not self._is_proven and not self._workers:
            raise ConfigError(str(error)) from error
        self._next_start = time.monotonic() + self._back_off_s
        self._back_off_s = min(2 * self._back_off_s, BACK_OFF_MAX_S)
        level = logging.INFO if self._is_refused else logging.WARNING
        self._is_refused = True
        log.log(level, "trials wait for workers, no job is taken now: %s", error)

    def _withdraw(self, worker: Worker) -> None:
        """A worker whose job does not exist, or must not do anything any more."""
        if worker.assignment is not None and worker.mailbox.take_back(worker.number):
            self._unplaced.append(worker.assignment)
            worker.assignment = None
        worker.mailbox.ask_to_leave()
        del self._workers[worker.id]

    def _is_evaluated(self, assignment: Assignment) -> bool:
        """Whether some earlier job still holds the trial's lock, and may finish the trial."""
        folder = assignment.folder(self.sweep_dir)
        if not is_locked(folder / TRIAL_LOCK):
            self._locked_since.pop(folder, None)
            return False
        if folder not in self._locked_since:
            log.warning("trial %d waits: an earlier job still evaluates it", assignment.trial)
        since = self._locked_since.setdefault(folder, time.monotonic())
        return time.monotonic() - since < 60.0 * self.config.hang_min

    def _place_unplaced(self) -> None:
        if time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + TRY_S
        unplaced, self._unplaced = self._unplaced, []
        for assignment in unplaced:
            self._place(assignment)

    def _share(self) -> None:
        """Give what waits for a job to start to workers that have nothing to do."""
        waiting = [w for w in self._workers.values() if w.assignment and not w.has_begun]
        if not waiting:
            return
        ready = [w for w in self._workers.values() if w.is_ready(self.config.reuse)]
        for idle, worker in zip(ready, waiting, strict=False):
            assignment = worker.assignment
            if assignment is not None and worker.mailbox.take_back(worker.number):
                worker.assignment = None
                self._give(idle, assignment)

    def _new_worker(self) -> Worker:
        made = len(list((self.sweep_dir / WORKERS_DIR).glob("*"))) + 1
        worker_id = f"{made:04d}-{secrets.token_hex(3)}"
        simulators = simulators_per_worker(self.config, self.launcher.capacity)
        mailbox = new_mailbox(self.config, self.sweep_dir, worker_id, simulators)
        worker = self._workers[worker_id] = self._worker(mailbox)
        return worker

    def _give(self, worker: Worker, assignment: Assignment) -> None:
        worker.take(assignment)
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

    # Watching jobs

    def _look(self) -> None:
        """Take in what the launcher said, and ask it again when that is due."""
        if self._look_call is not None and self._look_call.done():
            for folder, view in self._look_call.result().items():
                worker = self._workers.get(folder.name)
                if worker is not None:
                    worker.evidence.note(view)
            self._look_call = None
        if self._look_call is None and time.monotonic() >= self._next_look and self._workers:
            self._next_look = time.monotonic() + self.launcher.period_s
            mailboxes = [worker.mailbox for worker in self._workers.values()]
            self._look_call = in_background(lambda: self.launcher.views(mailboxes))

    def _care_for(self, worker: Worker) -> None:
        """What a job that has not ended may need: an id, a place for its trial, an end."""
        view = worker.evidence.view
        if view is None or worker.id not in self._workers:
            return
        is_starting = self._start_call is not None and self._start_call[0] is worker
        if worker.mailbox.job() is None and not is_starting:
            if view.job_id is not None:  # taken, though nobody confirmed it
                self._taken(worker, view.job_id)
            elif worker.evidence.absent_s() > UNCLEAR_S and not worker.has_begun:
                self._withdraw(worker)
        elif worker.evidence.is_held() and worker.assignment is not None:
            if worker.mailbox.take_back(worker.number):
                log.warning(
                    "trial %d goes to another worker: job %s is held (%s)",
                    worker.assignment.trial,
                    view.job_id,
                    view.reason,
                )
                self._unplaced.append(worker.assignment)
                worker.assignment = None
                worker.is_shelved = True
        elif worker.hung_at is None and worker.evidence.is_hung(worker.trial_dir, worker.hang_s):
            worker.hung_at = time.monotonic()
            in_background(lambda: self.launcher.cancel([worker.mailbox]))
        if view.state == "running":
            worker.is_shelved = False

    def _ends(self, worker: Worker) -> list[Ended]:
        """How the worker's assignment ended, if it has; forgets a worker that is gone."""
        # Asked before the outcome is read: what a gone worker wrote is then there to be read.
        left = worker.mailbox.worker_exit()
        is_given_up = worker.hung_at is not None and time.monotonic() - worker.hung_at > CANCEL_S
        gone = left is not None or worker.is_dead() or is_given_up
        if worker.assignment is None:
            if gone:
                del self._workers[worker.id]
            return []
        folder = worker.trial_dir
        assert folder is not None
        outcome = worker.mailbox.outcome(worker.number)
        if outcome is not None:
            if is_visible(outcome, folder):
                return [self._tell(worker, outcome.failure)]
            if worker.waits():
                return []
            said = f"worker {worker.id} finished, but its files did not appear in {folder}"
            return [self._tell(worker, failure("lost", said))]
        if not gone:
            return []
        taken_back = worker.mailbox.take_back(worker.number)
        if left is not None and taken_back:
            self._unplaced.append(worker.assignment)
            del self._workers[worker.id]
            return []
        if left is not None and promises_outcome(left, worker.number) and worker.waits():
            return []
        if left is not None and left.reason == "terminated" and not worker.is_dead():
            return []  # until the launcher says why
        del self._workers[worker.id]
        return [self._tell(worker, cause_of_end(worker, left))]

    def _tell(self, worker: Worker, cause: Failure | None) -> Ended:
        assert worker.assignment is not None
        ended = Ended(worker.assignment, cause)
        worker.assignment = None
        self._told.append((worker.mailbox, worker.number))
        return ended
