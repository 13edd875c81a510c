"""Evaluates chosen trials in a folder beside a sweep's own, with the sweep's launcher."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep import files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.confirmation import FixedTrials
from duqsweep.control.front.objectives import Objective
from duqsweep.control.trials.phase import read_phase
from duqsweep.control.trials.reader import TrialReader
from duqsweep.control.view.trouble import trouble_text
from duqsweep.errors import ConfigError
from duqsweep.verbs.interrupt import terminate_as_interrupt

if TYPE_CHECKING:
    from duqsweep.control.dispatch.dispatcher import Dispatcher


def add_trust_launcher(parser: argparse.ArgumentParser) -> None:
    """The option without which a folder's own commands are not run."""
    parser.add_argument(
        "--trust-launcher",
        action="store_true",
        help="jobs run the shell lines and options of sbatch that the folder's sweep.yaml has",
    )


def refuse_commands(config: SweepConfig) -> None:
    """A folder may come from anybody: what it lets jobs run needs the user's consent."""
    launcher = config.launcher
    said = {
        "setup": list(launcher.setup),
        "additional_parameters": dict(launcher.additional_parameters),
    }
    commands = [f"launcher.{key}={value!r}" for key, value in said.items() if value]
    if commands:
        raise ConfigError(
            f"jobs would run what {config.directory / files.SWEEP_YAML} says: "
            f"{', '.join(commands)}; add --trust-launcher if that is what you want"
        )


def evaluate_fixed(
    config: SweepConfig,
    folder: Path,
    trials: Sequence[int],
    episodes: int,
    objectives: Sequence[Objective],
    what: str,
    dispatcher: Dispatcher | None = None,
) -> str | None:
    """Walk the trials; returns what kept jobs from it.

    Args:
        config: Of the sweep.
        folder: Laid out as a sweep's; its trials have a spec.json.
        trials: Their numbers.
        episodes: That each has finished afterwards.
        objectives: Of the front that is shown meanwhile.
        what: Follows the sweep's name in the live view.
        dispatcher: The sweep's own, turned to the folder; None: a new one, whose jobs end here.
    """
    # Imported here: submitit is slow to import, and a bad argument should be reported at once.
    from duqsweep.control.dispatch.dispatcher import open_dispatcher
    from duqsweep.control.study.controller_lock import controller_lock
    from duqsweep.control.study.early_stopping import NoEarlyStopping
    from duqsweep.control.sweep import Parts, Sweep
    from duqsweep.control.sweep_files import FrontFiles, TrialFiles
    from duqsweep.control.tracking.tracker import NullTracker
    from duqsweep.control.view.live import open_progress
    from duqsweep.control.view.progress import Plan

    plan = Plan(
        f"{config.name}, {what}",
        len(trials),
        episodes,
        phase=lambda number: read_phase(files.trial_dir(folder, number)),
    )
    with terminate_as_interrupt(), controller_lock(folder), open_progress(plan) as progress:
        used = dispatcher or open_dispatcher(config.launcher, folder)
        parts = Parts(
            search=FixedTrials(trials, episodes),
            stopping=NoEarlyStopping(),
            dispatcher=used,
            trials=TrialFiles(folder, TrialReader(folder)),
            front=FrontFiles(folder, objectives),
            progress=progress,
            tracker=NullTracker(),
        )
        try:
            sweep = Sweep(folder, parts)
            return trouble_text(sweep.run(), sweep.deaths, "the same command")
        finally:  # after Ctrl-C the same command resumes at the next episode
            if dispatcher is None:
                used.close(end_jobs=True)
