"""The controller of a sweep as a job of SLURM: submitted once, requeued until the sweep ends."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep.codec import encode
from duqsweep.control.dispatch.batch import LOG, controller_flags, controller_script
from duqsweep.control.dispatch.jobstate import SlurmJobs, readable, run
from duqsweep.control.dispatch.launch import JobView, SubmissionError
from duqsweep.control.dispatch.slurm import SCRIPT, end_jobs, submit
from duqsweep.errors import ConfigError, DispatchError, DuqsweepError
from duqsweep.files import CONTROLLER_DIR, read_record, write_json
from duqsweep.mailbox import mark_of

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

RECORD = "job.json"
GONE = ("ended", "absent")  # states of a job that will not run again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ControllerRecord:
    """What is kept of the job in the sweep's folder."""

    folder: str  # absolute path of its folder when it was submitted
    secret: str  # random
    submitted_at: float  # Unix time
    job_id: str | None = None  # SLURM's, once it is known

    @property
    def job_name(self) -> str:
        """The name of the job, unlike any other job's; another folder cannot have it."""
        mark = mark_of(f"{self.secret}@{self.folder}")
        return f"duqsweep-{Path(self.folder).parent.name}-controller-{mark}"


@dataclass(frozen=True)
class _Job:
    """What is known of a job without SLURM."""

    name: str
    id: str | None


class ControllerJob:
    """The one job that may be the controller of a sweep."""

    def __init__(self, sweep_dir: Path) -> None:
        """Ask nothing; the folder may not exist."""
        self.folder = sweep_dir.resolve() / CONTROLLER_DIR
        self.log = self.folder / LOG

    def view(self) -> JobView | None:
        """The latest such job as SLURM sees it; None if this folder never had one.

        Raises:
            DispatchError: SLURM does not answer.
        """
        job = self._job()
        if job is None:
            return None
        view = SlurmJobs().named(job.name)
        if view is None:
            raise DispatchError(
                f"SLURM does not say whether the sweep's controller, job {job.id or job.name}, is "
                "there"
            )
        return view if view.job_id is not None else replace(view, job_id=job.id)

    def is_this_process(self) -> bool:
        """Whether this process runs in that job."""
        job = self._job()
        return job is not None and os.environ.get("SLURM_JOB_NAME") == job.name

    def submit(self, config: LauncherConfig, command: str) -> str:
        """Submit the job; returns its id. There must be none that could still run.

        Args:
            config: The launcher.
            command: The shell command of the controller, for the present working directory.

        Raises:
            ConfigError: SLURM refuses such a job for good.
            DispatchError: It refuses the job now, or does not answer.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        record = ControllerRecord(str(self.folder), secrets.token_hex(16), time.time())
        flags = controller_flags(config)
        script = controller_script(config, flags, record.job_name, self.log, command)
        # Written before: a job that SLURM takes without an answer is found by its name.
        write_json(self.folder / RECORD, encode(record))
        try:
            job_id = submit(script, self.folder, flags)
        except SubmissionError as error:
            if not error.unclear:
                (self.folder / RECORD).unlink()
                (self.folder / SCRIPT).unlink(missing_ok=True)
            if error.is_final:
                raise ConfigError(f"the controller: {error}") from error
            raise
        write_json(self.folder / RECORD, encode(replace(record, job_id=job_id)))
        return job_id

    def cancel(self) -> None:
        """End the job if it is there.

        Raises:
            DispatchError: SLURM does not answer, or does not take the order.
        """
        job = self._job()
        if job is not None and not end_jobs(lambda: _living_ids(job.name)):
            raise DispatchError(
                f"SLURM did not take the order to end the sweep's controller, job "
                f"{job.id or job.name}"
            )

    def _job(self) -> _Job | None:
        """None where there is none, or where it was made by others or elsewhere."""
        try:
            if self.folder.is_symlink() or self.folder.stat().st_uid != os.geteuid():
                return None
            record = read_record(ControllerRecord, self.folder / RECORD)
        except FileNotFoundError:
            return self._job_of_script()
        except DuqsweepError as error:
            job = self._job_of_script()
            if job is None:
                log.warning("the controller's job is not known: %s", error)
            return job
        is_here = record.folder == str(self.folder)
        return _Job(record.job_name, record.job_id) if is_here else None

    def _job_of_script(self) -> _Job | None:
        """The job by its script, which has its name; None where there is none, or not of here."""
        try:
            text = (self.folder / SCRIPT).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        options = dict(re.findall(r"^#SBATCH --(job-name|output)=(.+)$", text, re.MULTILINE))
        values = {name: "".join(shlex.split(value)) for name, value in options.items()}
        if values.get("output") != str(self.log) or "job-name" not in values:
            return None
        return _Job(values["job-name"], None)


def _living_ids(job_name: str) -> list[str] | None:
    """The id of a job that may run, or none; None without an answer."""
    view = SlurmJobs().named(job_name)
    if view is None:
        return None
    return [] if view.state in GONE or view.job_id is None else [view.job_id]


def requeue_this_job() -> None:
    """Put the job that this process runs in back into the queue, which ends it soon.

    Raises:
        DispatchError: SLURM refuses.
    """
    job_id = os.environ["SLURM_JOB_ID"]
    answer = run(["scontrol", "requeue", job_id])
    if answer.returncode:
        said = readable(answer.stderr) or f"exit code {answer.returncode}"
        raise DispatchError(
            f"SLURM does not requeue job {job_id}: {said}; nothing is lost, the same command with "
            "--as-job resumes"
        )
