"""`duqsweep twins DIR`: what quantization itself brings to the points of a front."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from duqsweep import exit_codes, files
from duqsweep.control.confirmation import prepare, unconfirmed
from duqsweep.control.front.factors import TWINS_DIR
from duqsweep.control.front.objectives import Objective
from duqsweep.control.trials.reader import read_trials
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
    directory = config.directory
    views = read_trials(directory)
    front = sweep_front(config, views)
    if not front.members:
        raise ConfigError(f"{config.name} has no front yet: there is nothing to time")
    forms = untimed(front, views, read_timings(directory, views))
    trials = twin_trials(directory, forms, config.base.suite)
    folder = directory / TWINS_DIR
    trouble = None
    if trials:
        simulator = check_simulator(directory, config.base.suite)
        prepare(folder, directory, trials, read_ledger(directory / files.LEDGER_JSON))
        write_simulator(folder, simulator)
        numbers = [trial.number for trial in trials]
        left = unconfirmed(folder, numbers, episodes=0)
        try:
            objectives = [Objective("call_ms", "minimize")]
            if left:
                trouble = evaluate_fixed(config, folder, left, 0, objectives, "unquantized twins")
        except KeyboardInterrupt:
            print(f"interrupted; this resumes:\n  {command(['twins', *arguments])}")
            return exit_codes.INTERRUPTED
        front = sweep_front(config, views)
        files.write_json(directory / files.FRONT_JSON, front.to_json())
        update_screens(config, front, views)
    rows = decomposition(front)
    print(table([HEADER, *rows]) if rows else "no point's twin is timed yet")
    print(f"\n{NOTE}")
    if trouble:
        print(trouble, file=sys.stderr)
    return _exit_code(folder, [trial.number for trial in trials])


def _exit_code(folder: Path, numbers: list[int]) -> int:
    """0 when every form was timed; otherwise print which was not, and why."""
    views = {view.number: view for view in read_trials(folder)}
    code = exit_codes.OK
    for view in (views[number] for number in numbers):
        if view.outcome == "failed" and view.result is not None:
            print(f"duqsweep: twin {view.number} failed: {view.result.reason}", file=sys.stderr)
            code = code or exit_codes.FAILED_TRIALS
        elif view.result is None:
            print(f"duqsweep: twin {view.number} was not timed", file=sys.stderr)
            code = exit_codes.ERROR
    return code
