"""What the dispatcher remembers of one worker, and what it makes of the worker's end."""

from __future__ import annotations

from duqsweep.assignment import Assignment, Failure, FailureKind, failure
from duqsweep.control.dispatch.launch import JobView
from duqsweep.mailbox import LeaveReason, Mailbox

WORDLESS: tuple[FailureKind, ...] = ("setup", "lost")  # how a job ends for no known reason


class Worker:
    """One worker of a pool, as its dispatcher knows it."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.id = mailbox.folder.name
        self.number = mailbox.last_number()  # of the last assignment
        self.assignment: Assignment | None = None  # that has not ended
        self.job_end: JobView | None = None

    def is_free(self, reuse: bool) -> bool:
        """Whether it would take an assignment now."""
        return (
            self.assignment is None
            and self.job_end is None
            and (reuse or not self.number)
            and not self.mailbox.asked_to_leave()
            and self.mailbox.left() is None
        )


def cause_of_end(worker: Worker, reason: LeaveReason | None) -> Failure | None:
    """Why a gone worker left its assignment without an outcome; None while that is not known."""
    if reason in ("timeout", "preempted"):
        return failure(reason, f"worker {worker.id} was told by SIGUSR2 that its job ends")
    if reason == "stopped":
        return failure("cancelled", f"worker {worker.id} was asked to leave")
    end = worker.job_end
    if end is None:
        return None
    # SIGTERM alone does not say why; without a better word from the launcher, it was preempted.
    kind = "preempted" if reason == "terminated" and end.kind in WORDLESS else end.kind
    return failure(kind, f"worker {worker.id}: {end.message}")
