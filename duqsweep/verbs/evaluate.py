"""`duqsweep evaluate [overrides]`: one trial, here and now, without a search."""

from __future__ import annotations

import argparse
import secrets
import time
from contextlib import closing
from pathlib import Path

from duqsweep import exit_codes, files
from duqsweep.control.config.overrides import given_settings
from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig, check_inputs, compose
from duqsweep.control.dispatch.devices import take_device
from duqsweep.control.dispatch.simulators import simulators_per_worker
from duqsweep.control.front.formats import number
from duqsweep.control.front.simulator import sweep_simulator
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.trial_status import TrialStatus, write_status
from duqsweep.control.trials.reader import read_trial, read_trials
from duqsweep.control.view import wording
from duqsweep.control.view.simulation import simulator_line, warnings
from duqsweep.errors import ConfigError
from duqsweep.masking import masked
from duqsweep.result import TrialResult
from duqsweep.verbs.undo import undone_if_refused
from duqsweep.worker.ledger import make_ledger, write_ledger
from duqsweep.worker.simulator import check_simulator, write_simulator

SWEEP = "evaluate"  # begins the folder's name; the sweep's space holds one point


def main(arguments: list[str]) -> int:
    """Evaluate what the overrides describe and print its vitals and result.

    Returns:
        0, or 3 when the policy failed.
    """
    parser = argparse.ArgumentParser(prog="duqsweep evaluate", description=__doc__)
    parser.add_argument(
        "--episodes",
        type=int,
        default=6,
        help="ledger entries to play (default 6; 0: only time it)",
    )
    parser.add_argument("--plan", help="a named plan, e.g. seed_current; overrides come on top")
    parser.add_argument(
        "overrides", nargs="*", help="e.g. quant.include=dit_mlp policy.num_steps=4"
    )
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.episodes < 0:
        raise ConfigError(f"--episodes must not be negative, got {parsed.episodes}")
    plan = parsed.plan or "reference"
    # Two may start within one second.
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    around = [f"name={SWEEP}-{stamp}", f"enqueue=[{plan}]"]
    around.append(f"budget.episodes_per_trial={parsed.episodes}")
    if not parsed.episodes:
        around.append("objectives=[{name: call_ms}]")
    config = compose([*around, *parsed.overrides])
    if config.budget.episodes_per_trial != parsed.episodes:
        raise ConfigError(
            "evaluate takes the number of episodes as --episodes N, not as "
            f"budget.episodes_per_trial={config.budget.episodes_per_trial}"
        )
    check_inputs(config)
    space = Space.from_config(config)
    params = dict(space.plans[plan]) if parsed.plan else {}
    changed = params.keys() & given_settings(parsed.overrides).keys()
    for key in changed:
        del params[key]  # the base has what was given
    trial = space.trial(0, params, None if changed else parsed.plan)
    folder = _make_folder(config, space)
    trial_dir = files.trial_dir(folder, 0)
    trial_dir.mkdir(parents=True)
    files.write_json(trial_dir / files.SPEC_JSON, trial.to_json())

    # torch takes seconds to import
    from duqsweep.worker.evaluate import WorkerCache, evaluate

    take_device()
    print(_settings(space, params))
    print(f"evaluating in {trial_dir}")
    simulators = simulators_per_worker(config.launcher, workers=1)
    with closing(WorkerCache(simulators=simulators)) as bench:
        result = evaluate(trial_dir, parsed.episodes, bench)
    write_status(trial_dir, TrialStatus(result.outcome, result.reason, parsed.episodes))
    _print(folder, trial_dir, result)
    return exit_codes.FAILED_TRIALS if result.outcome == "failed" else exit_codes.OK


def _make_folder(config: SweepConfig, space: Space) -> Path:
    from duqsweep.control.study.identity import identity  # optuna takes a second to import

    folder = config.directory
    simulator = check_simulator(folder, config.base.suite)
    private = masked(config.yaml) != config.yaml
    with undone_if_refused(folder):
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
        files.write_text(folder / files.SWEEP_YAML, config.yaml, private)
        files.write_json(folder / files.IDENTITY_JSON, identity(config, space))
        write_ledger(folder / files.LEDGER_JSON, make_ledger(config.base.suite))
        write_simulator(folder, simulator)
    return folder


def _settings(space: Space, params: Params) -> str:
    """All that the trial was given or has by default, in one line."""
    settings = {**space.base.settings, **params}
    known = {key: value for key, value in settings.items() if value is not None}
    return f"policy={space.base.policy.name} suite={space.base.suite.name} " + " ".join(
        f"{key}={number(value)}" for key, value in known.items()
    )


def _print(folder: Path, trial_dir: Path, result: TrialResult) -> None:
    view = read_trial(trial_dir)
    if view.vitals is not None:
        print(wording.vitals_text(view.vitals))
    simulator = sweep_simulator(read_trials(folder))
    if simulator is not None:
        print("\n".join([str(simulator_line(simulator)), *warnings(simulator)]))
    print(wording.result_text(result))
    for category, counts in view.categories.items():
        if counts.ran:
            interval = wording.interval(SuccessEstimate.of(counts))
            print(f"  {category}: {counts.successes} of {counts.ran} ({interval})")
