"""What a dispatcher needs of a launcher, whichever cluster stands behind it."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import submitit

import duqsweep
from duqsweep.assignment import FailureKind
from duqsweep.errors import DispatchError
from duqsweep.mailbox import Mailbox

Entry = Callable[[str], None]  # what a job runs, given its worker's folder

JOB_FOLDER = "job"  # in a worker's folder: submitit's pickles and the job's output
LOG_SUFFIX = "_log.err"  # submitit's name for standard error
SIGNAL_S = 30  # between SIGUSR2 and the end of a job
STARTING_S = 30.0  # a job that nobody has seen may still appear for so long after its submission
LOG_LINES = 5
SILENT_TEXTS = ("unable to contact slurm controller", "timed out")  # of SLURM's commands


class SilentError(DispatchError):
    """The launcher does not answer now; the same may be asked again later."""


@dataclass(frozen=True)
class JobView:
    """A worker's job as its launcher sees it."""

    ended: bool
    kind: FailureKind = "lost"  # what it means for an assignment without an outcome
    message: str = ""


class Launcher(Protocol):
    """Starts, watches and ends the jobs of workers."""

    name: str
    capacity: int  # workers that may run at once
    period_s: float  # between two looks at the jobs

    def start(self, mailbox: Mailbox, entry: Entry) -> str:
        """Submit the worker's job; returns its id.

        Raises:
            DispatchError: It was refused.
            SilentError: Nobody answered.
        """

    def views(self, mailboxes: Sequence[Mailbox]) -> dict[Path, JobView]:
        """One batched look at all jobs, by worker folder; a missing one is not known now."""

    def cancel(self, mailboxes: Sequence[Mailbox]) -> None:
        """End these jobs now, as far as they have not ended."""


def submit(executor: submitit.Executor, mailbox: Mailbox, entry: Entry) -> submitit.Job[None]:
    """Hand the worker's job to submitit; no result is ever asked from it."""
    try:
        return executor.submit(entry, str(mailbox.folder))
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        if is_silence(str(error)):
            raise SilentError(f"the job of {mailbox.folder.name} waits: {error}") from error
        raise DispatchError(f"the job of {mailbox.folder.name} was refused: {error}") from error


def is_silence(said: str) -> bool:
    """Whether a command of SLURM failed because its controller did not answer."""
    return any(text in said.lower() for text in SILENT_TEXTS)


def setup_lines(cpus_per_task: int, own: Sequence[str]) -> list[str]:
    """Shell lines before the job: this package can be imported, and threads fit the job's cores."""
    root = shlex.quote(str(Path(duqsweep.__file__).resolve().parent.parent))
    return [
        f'export PYTHONPATH={root}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        f"export OMP_NUM_THREADS={cpus_per_task} OPENBLAS_NUM_THREADS={cpus_per_task}",
        *own,
    ]


def log_tail(mailbox: Mailbox) -> str:
    """The last lines that a job wrote to its standard error, or an empty string."""
    lines: list[str] = []
    for path in sorted((mailbox.folder / JOB_FOLDER).glob(f"*{LOG_SUFFIX}")):
        lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])


def is_starting(mailbox: Mailbox) -> bool:
    """Whether a job that nobody has seen may still appear."""
    terms = mailbox.terms()
    return terms is not None and time.time() - terms.created_at < STARTING_S


@contextmanager
def outside_of_any_job() -> Iterator[None]:
    """Submit as if from a login node, also when this process is itself a SLURM job.

    SLURM_ARRAY_JOB_ID would leak into the new job, which would then take the outer job's id.
    """
    conf = os.environ.get("SLURM_CONF")  # not a job's variable, yet clean_env removes it
    with submitit.helpers.clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
