"""Where the jobs of a sweep stand now, for whoever asks from outside of its controller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep.control.dispatch.dispatcher import open_launcher
from duqsweep.control.dispatch.launch import JobView
from duqsweep.control.dispatch.member import own_mailboxes

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig


def job_states(config: LauncherConfig, sweep_dir: Path) -> dict[int, JobView]:
    """What the launcher says of the jobs that have an assignment, by trial.

    Runs at most the launcher's own commands (squeue and sacct), and nothing that the folder says.
    """
    if config.name == "inline":
        return {}
    trials = {}
    for mailbox in own_mailboxes(sweep_dir):
        numbers = mailbox.open_numbers()
        if numbers and mailbox.worker_exit() is None and mailbox.outcome(numbers[-1]) is None:
            assignment = mailbox.assignment(numbers[-1])
            if assignment is not None and not assignment.part:
                trials[mailbox] = assignment.trial
    if not trials:
        return {}
    views = open_launcher(config).views(list(trials))
    return {
        trial: views[mailbox.folder] for mailbox, trial in trials.items() if mailbox.folder in views
    }
