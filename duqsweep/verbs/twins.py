"""`duqsweep twins DIR`: what quantization itself brings to the points of a front."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep import exit_codes, files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.confirmation import prepare, unconfirmed
from duqsweep.control.front.factors import TWINS_DIR
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.records import Front
from duqsweep.control.trials.reader import TrialView, read_trials
from duqsweep.control.twins import read_timings, twin_trials, untimed
from duqsweep.control.view.decomposition import HEADER, NOTE, decomposition
from duqsweep.errors import ConfigError
from duqsweep.verbs.command import command
from duqsweep.verbs.explain import table
from duqsweep.verbs.fixed_trials import add_trust_launcher, evaluate_fixed, refuse_commands
from duqsweep.verbs.folder import sweep_config, sweep_front
from duqsweep.verbs.screens import update_screens
from duqsweep.worker.ledger import read_ledger
from duqsweep.worker.simulator import check_simulator, write_simulator

if TYPE_CHECKING:
    from duqsweep.control.dispatch.dispatcher import Dispatcher


def main(arguments: list[str]) -> int:
    """Time the unquantized twins of the front's points, and print what each speed-up is made of.

    A twin has the point's denoising steps and compilation, and no quantization. A form that a trial
    of the sweep has, or that was timed before, is not timed again.

    Returns:
        0; 1 when a form was not timed; 3 when one failed.
    """
    parser = argparse.ArgumentParser(prog="duqsweep twins", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    add_trust_launcher(parser)
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    if not parsed.trust_launcher:
        refuse_commands(config)
    views = read_trials(config.directory)
    front = sweep_front(config, views)
    if not front.members:
        raise ConfigError(f"{config.name} has no front yet: there is nothing to time")
    try:
        timed = time_twins(config, front, views)
    except KeyboardInterrupt:
        print(f"interrupted; this resumes:\n  {command(['twins', *arguments])}")
        return exit_codes.INTERRUPTED
    if timed.trials:
        front = sweep_front(config, views)
        files.write_json(config.directory / files.FRONT_JSON, front.to_json())
        update_screens(config, front, views)
    rows = decomposition(front)
    print(table([HEADER, *rows]) if rows else "no point's twin is timed yet")
    print(f"\n{NOTE}")
    return timed.report()


@dataclass(frozen=True)
class TimedTwins:
    """What became of the forms that were to be timed."""

    folder: Path
    trials: tuple[int, ...] = ()  # numbers of the twins; empty where all forms were known
    is_new: bool = False  # whether any of them was timed now
    trouble: str | None = None  # what kept jobs from it

    def report(self) -> int:
        """Print on stderr which form was not timed, and why; returns the exit code."""
        if self.trouble:
            print(self.trouble, file=sys.stderr)
        views = {view.number: view for view in read_trials(self.folder)}
        code = exit_codes.OK
        for view in (views[number] for number in self.trials):
            if view.outcome == "failed" and view.result is not None:
                print(f"duqsweep: twin {view.number} failed: {view.result.reason}", file=sys.stderr)
                code = code or exit_codes.FAILED_TRIALS
            elif view.result is None:
                print(f"duqsweep: twin {view.number} was not timed", file=sys.stderr)
                code = exit_codes.ERROR
        return code


def time_twins(
    config: SweepConfig,
    front: Front,
    views: Sequence[TrialView],
    dispatcher: Dispatcher | None = None,
) -> TimedTwins:
    """Time those forms of the front's unquantized twins that were not timed yet.

    Args:
        config: Of the sweep.
        front: Of the sweep.
        views: Its trials.
        dispatcher: The sweep's, which has nothing else to do: its workers have loaded the policy,
            and much of what the twins run is compiled there. None: new workers do it.

    Raises:
        KeyboardInterrupt: What was timed is kept.
    """
    directory = config.directory
    forms = untimed(front, views, read_timings(directory, views))
    trials = twin_trials(directory, forms, config.base.suite)
    folder = directory / TWINS_DIR
    numbers = tuple(trial.number for trial in trials)
    if not trials:
        return TimedTwins(folder)
    simulator = check_simulator(directory, config.base.suite)
    prepare(folder, directory, trials, read_ledger(directory / files.LEDGER_JSON))
    write_simulator(folder, simulator)
    left = unconfirmed(folder, numbers, episodes=0)
    trouble = None
    if left:
        if dispatcher is not None:
            dispatcher.turn_to(TWINS_DIR)
        objectives = [Objective("call_ms", "minimize")]
        what = "unquantized twins"
        trouble = evaluate_fixed(config, folder, left, 0, objectives, what, dispatcher)
    return TimedTwins(folder, numbers, bool(left), trouble)
