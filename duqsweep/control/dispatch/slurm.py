"""Workers as jobs of a SLURM cluster."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit

from duqsweep.control.dispatch.jobstate import SlurmJobs, run
from duqsweep.control.dispatch.launch import (
    JOB_FOLDER,
    SIGNAL_S,
    Entry,
    JobView,
    SilentError,
    is_silence,
    outside_of_any_job,
    setup_lines,
    submit,
)
from duqsweep.errors import ConfigError
from duqsweep.mailbox import Mailbox

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

OWN_FLAGS = ("array", "error", "job-name", "no-requeue", "output", "requeue", "signal", "time")

Flags = Mapping[str, str | int | float | bool]


class SlurmLauncher:
    """submitit's SLURM executor, of which only the submission is used."""

    name = "slurm"
    period_s = 2.0

    def __init__(self, config: LauncherConfig) -> None:
        """Ask SLURM whether it would take such a job.

        Raises:
            ConfigError: There is no SLURM here, or it refuses these parameters for good.
            SilentError: SLURM does not answer.
        """
        if config.jobs < 1:
            raise ConfigError(
                f"launcher.jobs must say how many SLURM jobs may run at once, got {config.jobs}"
            )
        self.config = config
        self.capacity = config.jobs
        self.flags = sbatch_flags(config)
        check_flags({**self.flags, "time": config.timeout_min}, config.partition)
        self._jobs = SlurmJobs()

    def start(self, mailbox: Mailbox, entry: Entry) -> str:
        """Submit one batch job; its name is the worker's own."""
        terms = mailbox.terms()
        assert terms is not None
        # exec, so that the batch step's process is the worker and gets SIGUSR2 itself.
        executor = submitit.SlurmExecutor(
            mailbox.folder / JOB_FOLDER, python=f"exec {shlex.quote(sys.executable)}"
        )
        executor.update_parameters(
            job_name=terms.name,
            time=self.config.timeout_min,
            use_srun=False,
            setup=[
                "unset MUJOCO_EGL_DEVICE_ID",  # of the login node; SLURM says which GPU it is
                *setup_lines(self.config.cpus_per_task, self.config.setup),
            ],
            additional_parameters=dict(self.flags),
        )
        with outside_of_any_job():
            return str(submit(executor, mailbox, entry).job_id)

    def views(self, mailboxes: Sequence[Mailbox]) -> dict[Path, JobView]:
        """What SLURM says of the jobs with the workers' names."""
        return self._jobs.views(mailboxes)

    def cancel(self, mailboxes: Sequence[Mailbox]) -> None:
        """One scancel for all, with the ids that their names have now."""
        job_ids = self._jobs.living_ids(mailboxes)
        if job_ids:
            run(["scancel", *job_ids])


def sbatch_flags(config: LauncherConfig) -> dict[str, str | int | float | bool]:
    """The configuration as long options of sbatch, without what every worker has of its own."""
    extra = {
        key.replace("_", "-"): _flag_value(key, value)
        for key, value in config.additional_parameters.items()
    }
    taken = sorted(set(extra) & set(OWN_FLAGS))
    if taken:
        raise ConfigError(
            f"launcher.additional_parameters must not set {taken[0]!r}: duqsweep sets it itself"
        )
    wished = {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
        "cpus-per-task": config.cpus_per_task,
        "gpus-per-node": config.gpus_per_node or None,
        "mem": f"{round(1024 * config.mem_gb)}M" if config.mem_gb else None,
    }
    if {"mem-per-cpu", "mem-per-gpu"} & {key for key, value in extra.items() if value is not None}:
        del wished["mem"]  # sbatch takes one of the three
    flags = {key: value for key, value in {**wished, **extra}.items() if value is not None}
    # A pre-empted worker is replaced by the sweep, which knows whether it is still wanted.
    return {**flags, "signal": f"B:USR2@{SIGNAL_S}", "no-requeue": True}


def _flag_value(key: str, value: Any) -> str | int | float | bool | None:
    """A value of additional_parameters as sbatch means it; None leaves the option out."""
    if value is None or value is False:
        return None
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, (str, int, float)):
        return value
    raise ConfigError(
        f"launcher.additional_parameters.{key} must be a word, a number, true, false or a list, "
        f"got {value!r}"
    )


def check_flags(flags: Flags, partition: str | None) -> None:
    """Let sbatch judge the flags without submitting anything.

    Raises:
        ConfigError: sbatch is missing or refuses them.
        SilentError: SLURM does not answer.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "launcher=slurm needs sbatch on PATH; launcher=local runs on this machine"
        )
    options = [f"--{key}" if value is True else f"--{key}={value}" for key, value in flags.items()]
    with outside_of_any_job():
        answer = run(["sbatch", "--test-only", *options, "--wrap=true"])
    if answer.returncode == 0:
        return
    said = " ".join(answer.stderr.split())
    if is_silence(said):
        raise SilentError(f"SLURM does not answer: {said}")
    hint = ""
    if "partition" in said.lower():
        known = sorted(set(run(["sinfo", "-h", "-o", "%R"]).stdout.split()))
        hint = f"; launcher.partition={partition}, this cluster has {known}"
    raise ConfigError(f"sbatch refuses such a job: {said}{hint}")
