"""What SLURM says of many jobs at once: one squeue a look, and sacct for jobs it has forgotten."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duqsweep.assignment import FailureKind
from duqsweep.control.dispatch.launch import JobState, JobView, log_tail
from duqsweep.mailbox import Mailbox

log = logging.getLogger(__name__)

ANSWER_S = 30.0  # a controller of SLURM that needs longer counts as down
NO_ANSWER = "gave no answer"

QUEUED = ("PENDING", "REQUEUED", "REQUEUE_FED", "SPECIAL_EXIT")
# States that end a job, and what that means for an assignment without an outcome. All others, also
# those of newer versions, are of a job that has not ended: SUSPENDED and COMPLETING among them.
FINAL: dict[str, FailureKind] = {
    "BOOT_FAIL": "node",
    "CANCELLED": "cancelled",
    "COMPLETED": "lost",
    "DEADLINE": "timeout",
    "FAILED": "lost",
    "NODE_FAIL": "node",
    "OUT_OF_MEMORY": "oom",
    "PREEMPTED": "preempted",
    "REVOKED": "lost",
    "TIMEOUT": "timeout",
}
HELD_REASONS = ("held", "hold")  # in squeue's reason, e.g. JobHeldUser, launch failed requeued held
LAUNCH_TEXTS = ("slurm prolog",)  # the node could not begin the job, which SLURM then cancels
OOM_TEXTS = ("oom-kill", "oom_kill", "exceeded memory limit", "exceeded job memory limit")


@dataclass(frozen=True)
class Row:
    """One job in one answer of SLURM."""

    job_id: str
    state: str
    node: str
    reason: str


class SlurmJobs:
    """Reads the states of workers' jobs, which are found by name: SLURM uses ids again."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self._silent: set[str] = set()  # commands that gave no answer last time

    def views(self, mailboxes: Sequence[Mailbox]) -> dict[Path, JobView]:
        """By worker's folder; a missing one is not known now."""
        listed = self._list()
        if listed is None:
            return {}
        names = {mailbox.folder: _name(mailbox) for mailbox in mailboxes}
        forgotten = [mailbox for mailbox in mailboxes if names[mailbox.folder] not in listed]
        if forgotten:
            listed |= self._remembered(forgotten)
        return {
            mailbox.folder: classify(listed.get(names[mailbox.folder]), mailbox)
            for mailbox in mailboxes
        }

    def living_ids(self, mailboxes: Sequence[Mailbox]) -> list[str] | None:
        """Ids of the workers' jobs that have not ended; None while SLURM gives no answer."""
        listed = self._list()
        if listed is None:
            return None
        rows = [listed.get(_name(mailbox)) for mailbox in mailboxes]
        return [row.job_id for row in rows if row is not None and row.state not in FINAL]

    def named(self, job_name: str) -> JobView | None:
        """A job of this user; None without an answer."""
        listed = self._list()
        if listed is None:
            return None
        row = listed.get(job_name)
        if row is None:
            return JobView("absent")
        state = "ended" if row.state in FINAL else _living_state(row)
        return JobView(state, row.reason, row.job_id)

    def _list(self) -> dict[str, Row] | None:
        """This user's jobs by name, also those that ended lately; None without an answer."""
        mine = f"--user={os.geteuid()}"
        answer = self._ask(["squeue", "-h", "-a", "-r", mine, "-t", "all", "-o", "%i|%T|%N|%r|%j"])
        return None if answer is None else read_rows(answer)

    def _remembered(self, mailboxes: Sequence[Mailbox]) -> dict[str, Row]:
        """What the accounting, if there is one, knows of jobs that squeue does not list."""
        jobs = [mailbox.job() for mailbox in mailboxes]
        ids = ",".join(job.job_id for job in jobs if job is not None)
        if not ids:
            return {}
        answer = self._ask(
            ["sacct", "-n", "-P", "-X", "-j", ids, "-o", "JobIDRaw,State,NodeList,Reason,JobName"]
        )
        return read_rows(answer or "")

    def _ask(self, command: list[str]) -> str | None:
        """A command's output; None, with one warning until it answers again, when there is none."""
        answer = run(command)
        said = answer.stderr.strip()
        if answer.returncode == 0 and (read_rows(answer.stdout) or not answer.stdout.strip()):
            self._silent.discard(command[0])
            return answer.stdout
        if command[0] not in self._silent:
            said = readable(said or answer.stdout) or f"exit code {answer.returncode}"
            level = logging.WARNING if command[0] == "squeue" else logging.INFO
            log.log(level, "%s gives no answer, and ends no job: %s", command[0], said)
        self._silent.add(command[0])
        return None


def classify(row: Row | None, mailbox: Mailbox) -> JobView:
    """What SLURM's row, or its having none, says of a worker's job."""
    if row is None:
        return JobView("absent", message="SLURM does not know its job any more")
    kind = FINAL.get(row.state)
    if kind is None:
        return JobView(_living_state(row), row.reason, row.job_id)
    tail = log_tail(mailbox)
    if kind == "lost" and any(text in tail.lower() for text in OOM_TEXTS):
        kind = "oom"
    if kind in ("lost", "oom") and mailbox.heartbeat() is None:
        kind = "setup"  # it ended before the worker started
    if kind == "cancelled" and any(text in tail.lower() for text in LAUNCH_TEXTS):
        kind = "node"
    message = f"SLURM job {row.job_id} on {row.node or 'no node'}: {row.state} ({row.reason})"
    return JobView(
        "ended",
        row.reason,
        row.job_id,
        kind,
        f"{message}\n{tail}".strip(),
        is_proven=not row.node,  # it was never started
    )


def _living_state(row: Row) -> JobState:
    if row.state == "SUSPENDED":
        return "suspended"
    if row.state == "REQUEUE_HOLD" or any(text in row.reason.lower() for text in HELD_REASONS):
        return "held"
    return "queued" if row.state in QUEUED else "running"


def read_rows(answer: str) -> dict[str, Row]:
    """Job name → row, from lines `id|state|node|reason|name`; the latest job of a name wins."""
    rows = {}
    for line in answer.splitlines():
        fields = line.split("|", 4)
        if len(fields) == 5:
            job_id, state, node, reason, name = fields
            rows[name] = Row(job_id, state.split()[0], node, reason)  # "CANCELLED by 0"
    return rows


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A SLURM command's answer; one that is missing or takes too long has failed.

    Names and comments of jobs may be of any encoding.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=ANSWER_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        said = f"{command[0]} {NO_ANSWER} within {ANSWER_S:g} s"
    except OSError as error:
        said = f"{command[0]}: {error.strerror}"
    return subprocess.CompletedProcess(command, 1, "", said)


def readable(said: str) -> str:
    """The words of a command in one line, whatever bytes it printed."""
    line = " ".join(said.split())
    return "".join(char if char.isprintable() else "?" for char in line)[:300]


def _name(mailbox: Mailbox) -> str:
    worker_config = mailbox.worker_config()
    assert worker_config is not None
    return worker_config.job_name
