"""`duqsweep export DIR --trial N|--pick RULE`: the settings of one trial, for use elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from duqsweep import files
from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.control.export import PICKS, as_openpi_env, as_plan, pick
from duqsweep.errors import ConfigError
from duqsweep.quant.select import select_layers
from duqsweep.spec import Trial
from duqsweep.verbs.folder import sweep_config, sweep_front


def main(arguments: list[str]) -> int:
    """Print the export; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep export", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--trial", type=int, help="a trial's number")
    which.add_argument("--pick", metavar="RULE", help=PICKS)
    parser.add_argument(
        "--format",
        choices=("yaml", "openpi-env"),
        default="yaml",
        help="a named plan for conf/ (default), or a shell script for the openpi DuQuant prototype",
    )
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    number = parsed.trial
    if number is None:
        number = pick(sweep_front(config), parsed.pick)
    path = files.trial_dir(config.directory, number) / files.SPEC_JSON
    if not path.is_file():
        raise ConfigError(f"{config.name} has no trial {number}")
    trial = files.read_record(Trial, path)
    if parsed.format == "yaml":
        print(as_plan(trial, config.name), end="")
    else:
        bits = select_layers(trial.spec.quant, linear_layers(policy_sizes(trial.spec.policy)))
        print(as_openpi_env(trial, config.name, bits), end="")
    return 0
