"""`duqsweep retry DIR [--trial N]`: evaluate failed trials again at the sweep's next start."""

from __future__ import annotations

import argparse
from pathlib import Path

from duqsweep import files
from duqsweep.control.deaths import reopen
from duqsweep.control.trials.reader import TrialView, read_trials
from duqsweep.errors import ConfigError
from duqsweep.verbs.folder import sweep_config


def main(arguments: list[str]) -> int:
    """Take the results of failed trials away; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep retry", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument("--trial", type=int, help="its number (default: all that failed)")
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    from duqsweep.control.study.controller_lock import controller_lock

    with controller_lock(config.directory):
        views = _failed(config.name, read_trials(config.directory), parsed.trial)
        for view in views:
            reopen(files.trial_dir(config.directory, view.number))
    if not views:
        print(f"{config.name} has no failed trial; open ones are resumed by the next start")
        return 0
    numbers = ", ".join(str(view.number) for view in views)
    print(
        f"trial {numbers} of {config.name} will be evaluated again: start the sweep with the same "
        "command as before"
    )
    return 0


def _failed(name: str, views: list[TrialView], number: int | None) -> list[TrialView]:
    failed = [view for view in views if view.outcome == "failed"]
    if number is None:
        return failed
    outcomes = {view.number: view.outcome for view in views}
    if number not in outcomes:
        raise ConfigError(f"{name} has no trial {number}; it has {sorted(outcomes)}")
    if outcomes[number] != "failed":
        raise ConfigError(
            f"--trial must be a failed trial, and {number} is {outcomes[number]}; failed are "
            f"{[view.number for view in failed]}"
        )
    return [view for view in failed if view.number == number]
