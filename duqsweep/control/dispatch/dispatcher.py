"""The seam between the sweep's loop and whatever evaluates: one protocol, three launchers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from duqsweep.assignment import Assignment, Ended, Failure
from duqsweep.errors import ConfigError

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig
    from duqsweep.control.dispatch.launch import Launcher

__all__ = ["Assignment", "Dispatcher", "Ended", "Failure", "open_dispatcher", "open_launcher"]


class Dispatcher(Protocol):
    """Gives assignments to workers and tells how they ended."""

    capacity: int  # assignments that may run at once

    def submit(self, assignment: Assignment) -> None:
        """Have it evaluated; writes the trial's job.json and removes an old `stop`.

        While a cluster does not answer, the assignment waits and is pending.

        Raises:
            DispatchError: As many run as may, the trial runs already, or the launcher refuses.
        """

    def pending(self) -> list[Assignment]:
        """Submitted or re-attached, and not yet told as ended."""

    def reattach(self) -> list[Assignment]:
        """After a restart: what an earlier life submitted and was not told the end of.

        Submits nothing. What has ended meanwhile is told by the next polls.
        """

    def poll(self) -> list[Ended]:
        """What has ended since the last call; cheap enough for five calls a second.

        An end counts as told when `poll` is called again: whoever is killed before that hears of
        it once more.
        """

    def stop(self, trial: int, reason: str) -> None:
        """Ask the trial, for a reason that its result will give, to end after its current episode.

        If no worker has begun it, it is withdrawn: pending no more, and no end is told.
        """

    def close(self, end_jobs: bool) -> None:
        """Leave: let the jobs go on (idle workers leave by themselves), or end them now."""


def open_dispatcher(config: LauncherConfig, sweep_dir: Path) -> Dispatcher:
    """The dispatcher that `config.name` names.

    Raises:
        ConfigError: The name is unknown, or the launcher cannot work here.
        DispatchError: SLURM does not answer.
    """
    # Imported here, because submitit is slow to import.
    if config.name == "inline":
        from duqsweep.control.dispatch.inline import InlineDispatcher

        return InlineDispatcher(sweep_dir)
    from duqsweep.control.dispatch.pool import SubmititDispatcher

    return SubmititDispatcher(open_launcher(config), config, sweep_dir)


def open_launcher(config: LauncherConfig) -> Launcher:
    """The launcher of a pool of workers.

    Raises:
        ConfigError: The name is unknown, or the launcher cannot work here.
        DispatchError: SLURM does not answer.
    """
    if config.name == "local":
        from duqsweep.control.dispatch.local import LocalLauncher

        return LocalLauncher(config)
    if config.name == "slurm":
        from duqsweep.control.dispatch.slurm import SlurmLauncher

        return SlurmLauncher(config)
    raise ConfigError(f"launcher.name must be inline, local or slurm, got {config.name!r}")
