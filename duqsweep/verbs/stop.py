"""`duqsweep stop DIR`: ask a running sweep to end; without a controller, end its jobs."""

from __future__ import annotations

import argparse
from pathlib import Path

from duqsweep import files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.study.controller_lock import LOCK, controller_lock
from duqsweep.locking import is_locked
from duqsweep.verbs.folder import sweep_config

CANCELLED_S = 30.0  # a cancelled job that has just taken the lock has left it after that


def main(arguments: list[str]) -> int:
    """Write the `stop` file that a controller looks for, or end the jobs; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep stop", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    directory = parser.parse_args(arguments).directory
    config = sweep_config(directory)
    again = f"To resume: python -m duqsweep +sweep={config.name} with the same overrides"
    if is_locked(directory / LOCK):  # also by a controller that is a job
        files.write_text(directory / files.STOP, "")
        print(f"{config.name} was asked to stop: running trials finish their episode. {again}")
        return 0
    cancelled = _cancel_controller(config)
    ended = _end_jobs(config)
    number = "1 job was" if ended == 1 else f"{ended} jobs were"
    jobs = f"{number} ended, finished episodes are kept" if ended else "no jobs run"
    print(f"{config.name} {cancelled or 'has no controller'}: {jobs}. {again}")
    return 0


def _cancel_controller(config: SweepConfig) -> str | None:
    """End a controller that is a job and waits for its turn; returns what to say of it."""
    if not (config.directory / files.CONTROLLER_DIR).exists():
        return None
    from duqsweep.control.dispatch.controller_job import GONE, ControllerJob

    job = ControllerJob(config.directory)
    view = job.view()
    if view is None or view.state in GONE:
        return None
    job.cancel()
    return f"was to be resumed by SLURM job {view.job_id}, which was cancelled"


def _end_jobs(config: SweepConfig) -> int:
    """End what an earlier controller left running; returns the number of jobs."""
    # Imported here: submitit is slow to import.
    from duqsweep.control.dispatch.dispatcher import open_launcher
    from duqsweep.control.dispatch.pool import SubmititDispatcher

    if config.launcher.name == "inline":
        return 0
    with controller_lock(config.directory, CANCELLED_S):
        launcher = open_launcher(config.launcher)
        dispatcher = SubmititDispatcher(launcher, config.launcher, config.directory)
        dispatcher.reattach()
        return dispatcher.close(end_jobs=True)
