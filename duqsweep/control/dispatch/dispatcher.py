"""The seam between the sweep's loop and whatever evaluates: one protocol, three launchers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from duqsweep.assignment import Assignment, Ended, Failure
from duqsweep.control.dispatch.simulators import simulators_per_worker
from duqsweep.errors import ConfigError
from duqsweep.worker.child import open_evaluator

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig
    from duqsweep.control.dispatch.launch import Launcher

__all__ = ["Assignment", "Dispatcher", "Ended", "Failure", "open_dispatcher", "open_launcher"]


class Dispatcher(Protocol):
    """Gives assignments to workers and reports how they ended."""

    @property
    def capacity(self) -> int:
        """Assignments that may run at once, but for those in other folders that run now."""

    def turn_to(self, part: str) -> None:
        """Speak of the trials in another folder from now on, with the same workers.

        Assignments are submitted for these, and no others are pending or reported.

        Args:
            part: Name of a folder in the sweep's folder, laid out as a sweep's.
        """

    def submit(self, assignment: Assignment) -> None:
        """Have it evaluated; writes the trial's job.json and removes an old `stop`.

        While a cluster takes no jobs, the assignment waits and is pending.

        Raises:
            DispatchError: As many run as may, or the trial runs already.
            ConfigError: The launcher refuses the sweep's first job for good. Where the launcher is
                slow to answer, a later `poll` raises this.
        """

    def pending(self) -> list[Assignment]:
        """Submitted or re-attached, and not yet reported as ended."""

    def reattach(self) -> list[Assignment]:
        """After a restart: what an earlier controller submitted and did not hear the end of.

        Submits nothing, and needs no permission to submit. What has ended meanwhile is reported by
        the next polls.
        """

    def poll(self) -> list[Ended]:
        """What has ended since the last call; cheap enough for five calls per second.

        An end counts as reported when `poll` is called again: after a kill before that, it is
        reported once more.
        """

    def stop(self, trial: int, reason: str) -> None:
        """Ask the trial, for a reason that its result will give, to end after its current episode.

        If no worker has begun it, it is withdrawn: it is not pending any more, and no end is
        reported.
        """

    def close(self, end_jobs: bool) -> int:
        """Leave: let the jobs continue (idle workers leave by themselves), or end them now.

        Returns:
            The number of workers whose jobs had not ended.
        """


def open_dispatcher(config: LauncherConfig, sweep_dir: Path) -> Dispatcher:
    """The dispatcher that `config.name` names.

    Raises:
        ConfigError: The name is unknown, or the launcher cannot work here.
        DispatchError: SLURM does not answer.
    """
    # Imported here, because submitit is slow to import.
    if config.name == "inline":
        from duqsweep.control.dispatch.inline import InlineDispatcher

        opener = partial(open_evaluator, simulators_per_worker(config, workers=1))
        return InlineDispatcher(sweep_dir, opener)
    from duqsweep.control.dispatch.pool import SubmititDispatcher

    dispatcher = SubmititDispatcher(open_launcher(config), config, sweep_dir)
    dispatcher.check()
    return dispatcher


def open_launcher(config: LauncherConfig) -> Launcher:
    """The launcher of a pool of workers.

    Raises:
        ConfigError: The name is unknown, or the launcher cannot work here.
    """
    if config.name == "local":
        from duqsweep.control.dispatch.local import LocalLauncher

        return LocalLauncher(config)
    if config.name == "slurm":
        from duqsweep.control.dispatch.slurm import SlurmLauncher

        return SlurmLauncher(config)
    raise ConfigError(f"launcher.name must be inline, local or slurm, got {config.name!r}")
