"""What the dispatcher remembers of one worker, and what it makes of the worker's end."""

from __future__ import annotations

import hashlib
import logging
import secrets
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep.assignment import Assignment, Failure, FailureKind, failure
from duqsweep.control.dispatch.evidence import QUIET_S, Evidence
from duqsweep.control.dispatch.launch import SIGNAL_S
from duqsweep.errors import DuqsweepError
from duqsweep.files import WORKERS_DIR
from duqsweep.mailbox import WORKER_JSON, Mailbox, Outcome, WorkerConfig, WorkerExit
from duqsweep.processes import machine_id

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

UNEXPLAINED: tuple[FailureKind, ...] = ("setup", "lost")  # how a job ends for no known reason
VISIBLE_S = 90.0  # a file that another machine has written is visible after that, or never
FINISHED_FIRST = ("idle", "time", "served")  # reasons to leave that leave nothing unfinished

log = logging.getLogger(__name__)


class Worker:
    """One worker of a pool, as its dispatcher knows it."""

    def __init__(self, mailbox: Mailbox, hang_min: float) -> None:
        """Read what the folder says."""
        self.mailbox = mailbox
        self.id = mailbox.folder.name
        self.hang_s = 60.0 * hang_min
        self.number = mailbox.last_number()  # of the last assignment
        self.assignment: Assignment | None = None  # that has not ended
        self.evidence = Evidence(mailbox)
        self.is_shelved = False  # its job is held
        self.hung_at: float | None = None  # monotonic; when the order to end its job was given
        self._waits_since: float | None = None  # monotonic; for files that must become visible

    @property
    def trial_dir(self) -> Path | None:
        """The folder of the trial that it evaluates."""
        if self.assignment is None:
            return None
        return self.assignment.folder(self.mailbox.sweep_dir)

    @property
    def has_begun(self) -> bool:
        """Whether its job has started."""
        return self.mailbox.heartbeat() is not None

    def is_dead(self) -> bool:
        """Whether its job has ended, by all evidence."""
        return self.evidence.is_dead(self.trial_dir, self.hang_s)

    def is_free(self, reuse: bool) -> bool:
        """Whether it would take an assignment now, or when its job starts."""
        view = self.evidence.view
        is_listed = view is None or view.state != "absent" or self._is_heard()
        return (
            self.assignment is None
            and self.hung_at is None
            and is_listed
            and (view is None or view.state != "ended")
            and (reuse or not self.number)
            and not self.is_shelved
            and not self.mailbox.asked_to_leave()
            and self.mailbox.worker_exit() is None
        )

    def is_ready(self, reuse: bool) -> bool:
        """Whether it would take an assignment within a second."""
        return self.is_free(reuse) and self._is_heard()

    def waits(self) -> bool:
        """Whether files that must become visible may still do so; counts from the first call."""
        self._waits_since = self._waits_since or time.monotonic()
        return time.monotonic() - self._waits_since < VISIBLE_S

    def _is_heard(self) -> bool:
        return self.has_begun and self.evidence.quiet_s(self.trial_dir) < QUIET_S

    def take(self, assignment: Assignment) -> None:
        """It has the assignment with the next number."""
        self.number += 1
        self.assignment = assignment
        self._waits_since = None


def new_mailbox(
    config: LauncherConfig, sweep_dir: Path, worker_id: str, simulators: int
) -> Mailbox:
    """The folder of a worker that has no job yet.

    Args:
        config: The launcher.
        sweep_dir: Whose worker it is; an absolute path.
        worker_id: Its folder's name.
        simulators: How many it runs at once.
    """
    mailbox = Mailbox(sweep_dir / WORKERS_DIR / worker_id)
    mailbox.create(
        WorkerConfig(
            id=worker_id,
            folder=str(mailbox.folder),
            secret=secrets.token_hex(16),
            idle_s=config.idle_s,
            timeout_min=config.timeout_min,
            signal_s=SIGNAL_S,
            hang_min=config.hang_min,
            reuse=config.reuse,
            simulators=simulators,
            created_at=time.time(),
            host=socket.gethostname(),
            machine=machine_id(),
        )
    )
    return mailbox


def own_mailboxes(sweep_dir: Path) -> list[Mailbox]:
    """Of the workers that were made in this very folder by this user, oldest first.

    A copied, moved or planted folder names jobs and processes that are not this sweep's.
    """
    found = []
    for folder in sorted((sweep_dir.resolve() / WORKERS_DIR).glob("*")):
        mailbox = Mailbox(folder)
        try:
            is_own = mailbox.own_config() is not None
        except DuqsweepError as error:
            log.warning("worker %s is left alone: %s", folder.name, error)
            continue
        if is_own:
            found.append(mailbox)
        elif (folder / WORKER_JSON).exists():
            log.warning("worker %s is left alone: it was made by others or elsewhere", folder.name)
    return found


def is_visible(outcome: Outcome, folder: Path) -> bool:
    """Whether the trial's files are here as the worker left them."""
    return all(_digest(folder / name) == wanted for name, wanted in outcome.files.items())


def promises_outcome(left: WorkerExit, number: int) -> bool:
    """Whether a worker that left has written the outcome of this assignment, which it had begun."""
    return left.finished >= number or left.reason in FINISHED_FIRST


def cause_of_end(worker: Worker, left: WorkerExit | None) -> Failure:
    """Why a worker that is gone left its assignment without an outcome."""
    if worker.hung_at is not None:
        said = f"worker {worker.id} showed no sign of life for {worker.hang_s / 60:g} minutes"
        return failure("hung", said)
    if left is not None and left.reason in ("timeout", "preempted"):
        said = f"worker {worker.id} was notified by SIGUSR2 that its job ends"
        return failure("timeout" if left.reason == "timeout" else "preempted", said)
    if left is not None and left.reason == "stopped":
        return failure("cancelled", f"worker {worker.id} was asked to leave")
    view = worker.evidence.view
    if view is None or view.state not in ("ended", "absent"):
        return failure("lost", f"worker {worker.id} left without an outcome")
    # SIGTERM alone does not say why; unless the launcher knows better, it was a preemption.
    is_terminated = left is not None and left.reason == "terminated"
    kind = "preempted" if is_terminated and view.kind in UNEXPLAINED else view.kind
    return failure(kind, f"worker {worker.id}: {view.message}")


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
