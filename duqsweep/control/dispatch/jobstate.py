"""What SLURM says of many jobs at once: one squeue a look, and sacct for jobs it has forgotten."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duqsweep.assignment import FailureKind
from duqsweep.control.dispatch.launch import JobView, is_starting, log_tail
from duqsweep.mailbox import Mailbox

log = logging.getLogger(__name__)

ANSWER_S = 30.0  # a controller of SLURM that needs longer counts as down

# States that end a job, and what that means for an assignment without an outcome. All others, also
# those of newer versions, are a job that lives: SUSPENDED and COMPLETING among them.
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
    """Reads states, and believes the end of a job only when it has seen it twice.

    A node failure can show for seconds although the job goes on, and an answer of a controller that
    has just restarted can miss jobs.
    """

    def __init__(self) -> None:
        self._ends: dict[Path, int] = {}  # worker's folder → looks in a row at which it had ended

    def views(self, mailboxes: Sequence[Mailbox]) -> dict[Path, JobView]:
        """By worker's folder; a missing one is not known now."""
        listed = list_jobs()
        if listed is None:
            return {}
        names = {mailbox.folder: _name(mailbox) for mailbox in mailboxes}
        forgotten = [
            mailbox
            for mailbox in mailboxes
            if names[mailbox.folder] not in listed and not _is_young(mailbox)
        ]
        if forgotten:
            listed |= self._remembered(forgotten)
        views = {}
        for mailbox in mailboxes:
            row = listed.get(names[mailbox.folder])
            if row is None and mailbox not in forgotten:
                continue
            view = judge(row, mailbox)
            self._ends[mailbox.folder] = (self._ends.get(mailbox.folder, 0) + 1) * view.ended
            if not view.ended or self._ends[mailbox.folder] > 1:
                views[mailbox.folder] = view
        return views

    def living_ids(self, mailboxes: Sequence[Mailbox]) -> list[str]:
        """Ids of the workers' jobs that have not ended, found by name: ids come back."""
        listed = list_jobs() or {}
        rows = [listed.get(_name(mailbox)) for mailbox in mailboxes]
        return [row.job_id for row in rows if row is not None and row.state not in FINAL]

    def _remembered(self, mailboxes: Sequence[Mailbox]) -> dict[str, Row]:
        jobs = [mailbox.job() for mailbox in mailboxes]
        ids = ",".join(job.job_id for job in jobs if job is not None)
        if not ids:
            return {}
        answer = ask(
            ["sacct", "-n", "-P", "-X", "-j", ids, "-o", "JobIDRaw,State,NodeList,Reason,JobName"]
        )
        return read_rows(answer or "")


def judge(row: Row | None, mailbox: Mailbox) -> JobView:
    """What SLURM's row, or its having none, says of a worker's job."""
    if row is None:
        return JobView(True, "lost", "SLURM does not know its job any more")
    kind = FINAL.get(row.state)
    if kind is None:
        return JobView(False)
    tail = log_tail(mailbox)
    if kind == "lost" and any(text in tail.lower() for text in OOM_TEXTS):
        kind = "oom"
    if kind in ("lost", "oom") and mailbox.alive() is None:
        kind = "setup"  # it ended before the worker's first word
    if kind == "cancelled" and any(text in tail.lower() for text in LAUNCH_TEXTS):
        kind = "node"
    message = f"SLURM job {row.job_id} on {row.node or 'no node'}: {row.state} ({row.reason})"
    return JobView(True, kind, f"{message}\n{tail}".strip())


def list_jobs() -> dict[str, Row] | None:
    """This user's jobs by name, also those that ended lately; None when SLURM does not answer."""
    mine = f"--user={os.geteuid()}"
    answer = ask(["squeue", "-h", "-a", "-r", mine, "-t", "all", "-o", "%i|%T|%N|%r|%j"])
    return None if answer is None else read_rows(answer)


def read_rows(answer: str) -> dict[str, Row]:
    """Job name → row, from lines `id|state|node|reason|name`; the latest job of a name wins."""
    rows = {}
    for line in answer.splitlines():
        fields = line.split("|", 4)
        if len(fields) == 5:
            job_id, state, node, reason, name = fields
            rows[name] = Row(job_id, state.split()[0], node, reason)  # "CANCELLED by 0"
    return rows


def ask(command: list[str]) -> str | None:
    """A SLURM command's output; None, with a warning, when there is none now."""
    answer = run(command)
    if answer.returncode == 0:
        return answer.stdout
    log.warning("%s gives no answer: %s", command[0], answer.stderr.strip())
    return None


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A SLURM command's answer; one that is missing or takes too long has failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=ANSWER_S
        )
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _name(mailbox: Mailbox) -> str:
    terms = mailbox.terms()
    assert terms is not None
    return terms.name


def _is_young(mailbox: Mailbox) -> bool:
    """Whether its submission may still be under way."""
    return mailbox.job() is None and is_starting(mailbox)
