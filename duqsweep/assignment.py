"""The unit of work that search hands to dispatch, and how it can end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duqsweep import files

FailureKind = Literal[
    "oom", "timeout", "preempted", "node", "setup", "cancelled", "crash", "lost", "hung"
]
Fault = Literal["policy", "machine"]

# Faults of the policy: it asks for too much memory, or crashes outside of the simulator. Everything
# else is a fault of the machine (its set-up, scheduler and renderer, or a person), and does not
# depend on the trial.
POLICYS: tuple[FailureKind, ...] = ("oom", "crash")
# Who cancels a job does not want another one at once.
NOT_RETRIED: tuple[FailureKind, ...] = ("cancelled",)
# The scheduler's queue limits how often that happens, so it is retried without a limit.
ALWAYS_RETRIED: tuple[FailureKind, ...] = ("preempted",)


@dataclass(frozen=True)
class Assignment:
    """Evaluate a trial on those of the first `until_episode` entries that are not finished yet."""

    trial: int
    until_episode: int
    part: str = ""  # folder in the sweep's folder where the trial lies; "": among its own trials

    def folder(self, sweep_dir: Path) -> Path:
        """The trial's folder."""
        return files.trial_dir(sweep_dir / self.part, self.trial)


@dataclass(frozen=True)
class Failure:
    """A job that ended without a result. An exception of the policy is in result.json instead."""

    kind: FailureKind
    message: str
    retry: bool  # the same assignment may be given again at once

    @property
    def fault(self) -> Fault:
        """Whose fault it was. Only a fault of the policy ends its trial."""
        return whose(self.kind)


@dataclass(frozen=True)
class Ended:
    """An assignment is over; without a failure its trial's result.json was written."""

    assignment: Assignment
    failure: Failure | None


def failure(kind: FailureKind, message: str) -> Failure:
    """A failure whose `retry` follows from its kind."""
    return Failure(kind, message, retry=kind not in NOT_RETRIED)


def whose(kind: str) -> Fault:
    """Whose fault a failure of this kind is."""
    return "policy" if kind in POLICYS else "machine"
