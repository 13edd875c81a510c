"""The unit of work that search hands to dispatch, and how it can end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FailureKind = Literal["oom", "timeout", "preempted", "node", "cancelled", "crash", "lost"]

# The same assignment would run out of memory again, and a job that someone cancelled is not wanted.
NOT_RETRIED: tuple[FailureKind, ...] = ("oom", "cancelled")


@dataclass(frozen=True)
class Assignment:
    """Evaluate a trial on the ledger's entries up to (not including) `until_episode`."""

    trial: int
    until_episode: int


@dataclass(frozen=True)
class Failure:
    """A job that ended without a result; a policy's own fault is in result.json instead."""

    kind: FailureKind
    message: str
    retry: bool  # the machine's fault: the same assignment may be given again


@dataclass(frozen=True)
class Ended:
    """An assignment is over; without a failure its trial's result.json was written."""

    assignment: Assignment
    failure: Failure | None


def failure(kind: FailureKind, message: str) -> Failure:
    """A failure whose `retry` follows from its kind."""
    return Failure(kind, message, retry=kind not in NOT_RETRIED)
