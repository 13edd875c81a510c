"""What a dispatcher needs of a launcher, whichever cluster stands behind it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import submitit

import duqsweep
from duqsweep.assignment import FailureKind
from duqsweep.errors import ConfigError, DispatchError
from duqsweep.mailbox import Mailbox
from duqsweep.processes import PROOF

Entry = Callable[[str], None]  # what a job runs, given its worker's folder

JOB_FOLDER = "job"  # in a worker's folder: the job's script and output
LOG_SUFFIX = "_log.err"  # submitit's name for standard error
SIGNAL_S = 30  # between SIGUSR2 and the end of a job
STARTING_S = 30.0  # a job that nobody has seen may still appear for so long after its submission
LOG_LINES = 5

# queued: waits for its turn. held: waits for a person. absent: the launcher does not know it.
JobState = Literal["queued", "held", "running", "suspended", "ended", "absent"]


class SubmissionError(DispatchError):
    """A launcher did not take a job."""

    def __init__(self, said: str, asked: str, unclear: bool = False, is_final: bool = False):
        """Keep what was said and what was asked for.

        Args:
            said: The launcher's own words.
            asked: The request, for the user.
            unclear: The job may have been taken nevertheless.
            is_final: The same request will be refused again whatever runs.
        """
        super().__init__(f"{said}; asked for: {asked}")
        self.said = said
        self.unclear = unclear
        self.is_final = is_final


@dataclass(frozen=True)
class JobView:
    """A worker's job as its launcher sees it."""

    state: JobState
    reason: str = ""  # the launcher's word for why it waits or how it ended
    job_id: str | None = None
    kind: FailureKind = "lost"  # what an end means for an assignment without an outcome
    message: str = ""
    is_proven: bool = False  # the end was seen, not only reported


class Launcher(Protocol):
    """Starts, watches and ends the jobs of workers.

    `start` and `views` are called in threads, each in one thread at a time.
    """

    name: str
    capacity: int  # workers that may run at once
    period_s: float  # between two looks at the jobs

    def check(self) -> None:
        """Ask, before anything else, whether such jobs could ever run.

        Raises:
            ConfigError: They could not.
            DispatchError: Nobody answers.
        """

    def start(self, mailbox: Mailbox, entry: Entry) -> str:
        """Submit the worker's job; returns its id.

        Raises:
            SubmissionError: It was refused, or nobody answered.
        """

    def views(self, mailboxes: Sequence[Mailbox]) -> dict[Path, JobView]:
        """One batched look at all jobs, by worker folder; a missing one is not known now."""

    def cancel(self, mailboxes: Sequence[Mailbox]) -> None:
        """End these jobs now, as far as they have not ended and prove to be the workers' own."""


def check_path(sweep_dir: Path) -> None:
    """Raise ConfigError for a folder that no job can be given."""
    if "%" in str(sweep_dir):
        raise ConfigError(
            f"dir must not hold %, which SLURM and submitit read as %j, the number of a job: "
            f"got {sweep_dir}; launcher=inline takes any"
        )


def worker_command(mailbox: Mailbox, entry: Entry) -> str:
    """The shell command that a job consists of."""
    words = ["-u", "-m", "duqsweep.worker", f"{entry.__module__}:{entry.__qualname__}"]
    return shlex.join([sys.executable, *words, str(mailbox.folder)])


def job_folder(mailbox: Mailbox) -> Path:
    """The folder for the job's script and output, made if it is missing."""
    folder = mailbox.folder / JOB_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


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
    worker_config = mailbox.worker_config()
    return worker_config is not None and time.time() - worker_config.created_at < STARTING_S


@contextmanager
def outside_of_any_job(proof: str | None = None) -> Iterator[None]:
    """Submit as if from a login node, also when this process is itself a SLURM job.

    SLURM_ARRAY_JOB_ID would leak into the new job, which would then take the outer job's id.

    Args:
        proof: Goes into the environment of the new processes, to show whose they are.
    """
    conf = os.environ.get("SLURM_CONF")  # not a job's variable, yet clean_env removes it
    with submitit.helpers.clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        if proof is not None:
            os.environ[PROOF] = proof
        try:
            yield
        finally:
            os.environ.pop(PROOF, None)
