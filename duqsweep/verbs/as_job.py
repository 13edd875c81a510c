"""A sweep whose controller is a job of SLURM: `--as-job` submits it, `--in-job` is what it runs."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep import exit_codes, files
from duqsweep.errors import ConfigError

if TYPE_CHECKING:
    from duqsweep.control.config.sweep_config import SweepConfig

AS_JOB, IN_JOB = "--as-job", "--in-job"
# A job that was requeued waits so long for the lock of its earlier run, which died with its node.
LOCK_WAIT_S = 300.0


def refuse_second(directory: Path) -> None:
    """Raise ConfigError where another process, a job that lives, is or will be the controller.

    Raises:
        ConfigError: There is such a job.
        DispatchError: SLURM does not say.
    """
    if not (directory / files.CONTROLLER_DIR).exists():
        return
    # Imported here: submitit is slow to import.
    from duqsweep.control.dispatch.controller_job import GONE, ControllerJob
    from duqsweep.control.dispatch.jobfile import state_text

    job = ControllerJob(directory)
    if job.is_this_process():
        return
    view = job.view()
    if view is not None and view.state not in GONE:
        state = state_text(view.state, view.reason)
        raise ConfigError(
            f"{directory} has a controller: SLURM job {view.job_id}, {state}; "
            f"`python -m duqsweep stop {shlex.quote(str(directory))}` ends it"
        )


def submit_controller(config: SweepConfig) -> int:
    """Submit this very command as a job, and print how to follow and stop it; returns 0."""
    from duqsweep.control.dispatch.controller_job import ControllerJob

    words = [IN_JOB if word == AS_JOB else word for word in sys.orig_argv[1:]]
    job = ControllerJob(config.directory)
    job_id = job.submit(config.launcher, shlex.join([sys.executable, *words]))
    directory = shlex.quote(str(config.directory))
    print(f"the controller of {config.name} is SLURM job {job_id}")
    print(f"status:   python -m duqsweep status {directory}")
    print(f"log:      tail -F {shlex.quote(str(job.log))}")
    print(f"stop:     python -m duqsweep stop {directory}")
    return exit_codes.OK


def time_left_s(config: SweepConfig) -> float:
    """Seconds until this process, in its job, must leave so that it can hand over in time."""
    controller = config.launcher.controller
    # Newer versions of SLURM say when the job ends; before, it has begun a moment ago.
    end = float(os.environ.get("SLURM_JOB_END_TIME") or time.time() + 60.0 * controller.timeout_min)
    return end - controller.signal_s - time.time()


def hand_over() -> int:
    """Requeue the job of this process; returns its exit code, which nobody waits for.

    Raises:
        DispatchError: SLURM refuses.
    """
    from duqsweep.control.dispatch.controller_job import requeue_this_job

    requeue_this_job()
    return exit_codes.INTERRUPTED
