"""Workers as jobs of a SLURM cluster."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep.control.dispatch.batch import Flags, options, sbatch_flags, worker_script
from duqsweep.control.dispatch.jobstate import NO_ANSWER, SlurmJobs, readable, run
from duqsweep.control.dispatch.launch import (
    Entry,
    JobView,
    SubmissionError,
    job_folder,
    outside_of_any_job,
    worker_command,
)
from duqsweep.errors import ConfigError, DispatchError
from duqsweep.files import write_text
from duqsweep.mailbox import Mailbox
from duqsweep.masking import masked

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

# What sbatch says when the request never reached SLURM's controller, or may have.
DOWN_TEXTS = ("unable to contact slurm controller", "connection refused")
UNCLEAR_TEXTS = ("timed out", NO_ANSWER, "zero bytes were transmitted", "message receive failure")
# Refusals that pass by themselves: limits on what one user or account may have at once, and nodes
# that are busy, down or drained.
PASSING_TEXTS = (
    "qos",
    "assoc",
    "accounting/qos policy",
    "limit reached",
    "busy",
    "temporarily",
    "try again",
    "resource temporarily unavailable",
    "i/o error",
    "down, drained or reserved",
    "inactive or drain",
    "standby mode",
    "slurm_persist_conn",
    "authentication",
    "munge",
)
NEVER_TEXTS = ("invalid",)  # e.g. "Invalid qos specification"

SCRIPT = "submission.sh"  # of a job, in its folder
CANCEL_WAITS_S = (1.0, 2.0, 4.0)  # between orders to end jobs that SLURM did not take

log = logging.getLogger(__name__)


class SlurmLauncher:
    """Submits batch jobs by scripts that submitit writes."""

    name = "slurm"
    period_s = 2.0

    def __init__(self, config: LauncherConfig) -> None:
        """Check the configuration; asks SLURM nothing.

        Raises:
            ConfigError: The number of jobs or an option of sbatch is impossible.
        """
        if config.jobs < 1:
            raise ConfigError(
                f"launcher.jobs must say how many SLURM jobs may run at once, got {config.jobs}"
            )
        self.config = config
        self.capacity = config.jobs
        self.flags = sbatch_flags(config)
        self._jobs = SlurmJobs()

    def check(self) -> None:
        """Let sbatch judge such a job without submitting it.

        Raises:
            ConfigError: There is no SLURM here, or it refuses these parameters for good.
            DispatchError: SLURM does not answer.
        """
        check_flags({**self.flags, "time": self.config.timeout_min}, self.config.partition)

    def start(self, mailbox: Mailbox, entry: Entry) -> str:
        """Submit one batch job; its name is the worker's own."""
        worker_config = mailbox.worker_config()
        assert worker_config is not None
        folder = job_folder(mailbox)
        command = worker_command(mailbox, entry)
        text = worker_script(self.config, self.flags, worker_config.job_name, folder, command)
        return submit(text, folder, {**self.flags, "time": self.config.timeout_min})

    def views(self, mailboxes: Sequence[Mailbox]) -> dict[Path, JobView]:
        """What SLURM says of the jobs with the workers' names."""
        return self._jobs.views(mailboxes)

    def cancel(self, mailboxes: Sequence[Mailbox]) -> None:
        """One scancel for all, with the ids that their names have now.

        A name follows from the place of the worker's folder, so that no other folder, whatever its
        files say, ends these jobs. A SLURM that gives no answer is asked again a few times.
        """
        if not end_jobs(lambda: self._jobs.living_ids(mailboxes)):
            log.warning(
                "SLURM did not take the order to end the jobs of %d worker(s): those that run "
                "leave by themselves, those that wait leave as soon as they start",
                len(mailboxes),
            )


def end_jobs(living_ids: Callable[[], Sequence[str] | None]) -> bool:
    """Order the end of jobs, again a few times while SLURM gives no answer.

    Args:
        living_ids: Asks for the ids of those that have not ended; None without an answer.

    Returns:
        Whether SLURM took the order, or there was nothing to end.
    """
    for wait_s in (*CANCEL_WAITS_S, None):
        job_ids = living_ids()
        if job_ids is not None and (not job_ids or not run(["scancel", *job_ids]).returncode):
            return True
        if wait_s is not None:
            time.sleep(wait_s)
    return False


def submit(script: str, folder: Path, asked: Flags) -> str:
    """Submit a batch job; returns its id.

    Args:
        script: Its text.
        folder: Where the script is kept.
        asked: What it asks for, for the user.

    Raises:
        SubmissionError: It was refused, or nobody answered.
    """
    path = folder / SCRIPT
    write_text(path, script, private=True)  # launcher.setup may hold a password
    with outside_of_any_job():
        answer = run(["sbatch", str(path)])
    said = readable(answer.stderr)
    request = masked(" ".join(["sbatch", *options(asked)]))
    if answer.returncode:
        raise refusal(said or f"sbatch ended with exit code {answer.returncode}", request)
    job_id = re.search(r"Submitted batch job ([0-9]+)", answer.stdout)
    if job_id is None:
        said = f"sbatch answers {readable(answer.stdout)!r} instead of a job's id"
        raise SubmissionError(said, request, unclear=True)
    return job_id[1]


def refusal(said: str, asked: str) -> SubmissionError:
    """What a refusal of sbatch means for asking again."""
    lower = said.lower()
    passes = any(text in lower for text in (*DOWN_TEXTS, *UNCLEAR_TEXTS, *PASSING_TEXTS))
    is_final = not passes or any(text in lower for text in NEVER_TEXTS)
    unclear = any(text in lower for text in UNCLEAR_TEXTS)
    return SubmissionError(f"sbatch refuses the job: {said}", asked, unclear, is_final)


def check_flags(flags: Flags, partition: str | None) -> None:
    """Let sbatch judge the flags without submitting anything.

    A refusal that passes by itself, such as a limit that is reached now, is none.

    Raises:
        ConfigError: sbatch is missing or refuses them for good.
        DispatchError: SLURM does not answer.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "launcher=slurm needs sbatch on PATH; launcher=local runs on this machine"
        )
    with outside_of_any_job():
        answer = run(["sbatch", "--test-only", *options(flags), "--wrap=true"])
    if answer.returncode == 0:
        return
    said = readable(answer.stderr)
    if any(text in said.lower() for text in (*DOWN_TEXTS, *UNCLEAR_TEXTS)):
        raise DispatchError(f"SLURM does not answer: {said}")
    asked = masked(" ".join(["sbatch", *options(flags)]))
    if not refusal(said, asked).is_final:
        return
    hint = ""
    if "partition" in said.lower():
        known = sorted(set(run(["sinfo", "-h", "-o", "%R"]).stdout.split()))
        hint = f"; launcher.partition={partition}, this cluster has {known}"
    raise ConfigError(f"sbatch refuses such a job: {said}{hint}; asked for: {asked}")
