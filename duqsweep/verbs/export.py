"""`duqsweep export DIR`: the settings of one trial, or the episodes, for use elsewhere."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from duqsweep import files
from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.control.card import model_card
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.episode_lines import States, episode_lines
from duqsweep.control.export import PICKS, as_plan, pick, remarks
from duqsweep.control.front.records import Front
from duqsweep.control.front.reserved import CONFIRM_DIR
from duqsweep.control.openpi_env import as_openpi_env
from duqsweep.control.tracking.mlflow_client import default_uri
from duqsweep.control.tracking.runids import check_target
from duqsweep.control.trial_words import trial_words
from duqsweep.control.trials.reader import read_trial, read_trials
from duqsweep.errors import ConfigError
from duqsweep.quant.select import select_layers
from duqsweep.spec import Trial
from duqsweep.verbs.folder import sweep_config, sweep_front, tracking_uri


def main(arguments: list[str]) -> int:
    """Print the export; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep export", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trial", type=int, help="a trial's number")
    which.add_argument(
        "--pick", metavar="RULE", help=f"{PICKS}; success by the lower end of its interval"
    )
    parser.add_argument(
        "--format",
        choices=("yaml", "card", "openpi-env", "episodes"),
        default="yaml",
        help="a named plan for conf/ (default), a model card in Markdown, a shell script for the "
        "openpi DuQuant prototype, or every episode as a line of JSON (without --trial and "
        "--pick: of all trials)",
    )
    parser.add_argument(
        "--register",
        nargs="?",
        const="",
        metavar="NAME",
        help="also register the trial with its card in MLflow, as a version of the model NAME "
        "(default: duqsweep-SWEEP)",
    )
    parsed = parser.parse_args(arguments)
    if parsed.register is not None and parsed.format == "episodes":
        raise ConfigError("--register is of one trial, and --format episodes of episodes")
    if parsed.trial is None and parsed.pick is None and parsed.format != "episodes":
        raise ConfigError(f"--format {parsed.format} needs --trial N or --pick RULE")
    config = sweep_config(parsed.directory)
    front = sweep_front(config)
    number = parsed.trial if parsed.pick is None else pick(front, parsed.pick)
    if number is not None and not _spec_path(config, number).is_file():
        raise ConfigError(f"{config.name} has no trial {number}")
    if parsed.format == "episodes":
        _print_episodes(config, number)
        return 0
    assert number is not None
    text = _exported(config, front, number, parsed.format)
    print(text, end="", flush=True)  # what cannot be written needs no remarks
    for line in remarks(front, number):
        print(line, file=sys.stderr)
    if parsed.register is not None:
        print(_register(config, front, number, parsed.register), file=sys.stderr)
    return 0


def _register(config: SweepConfig, front: Front, number: int, name: str) -> str:
    """Register a trial in MLflow and say where; its copy of the sweep is brought up to date."""
    name = name or f"duqsweep-{config.name}"
    if not re.fullmatch(r"[\w.-]+( [\w.-]+)*", name):
        raise ConfigError(f"--register takes a name of letters, digits and _ . -, got {name!r}")
    if config.tracking.name == "none":
        raise ConfigError(f"--register needs MLflow, and {config.name} has tracking=none")
    uri = tracking_uri(config)
    check_target(config.directory, uri or default_uri(config.directory))
    from duqsweep.control.tracking.mirror import mirror  # MLflow takes seconds to import
    from duqsweep.control.tracking.register import CARD, PLAN, register

    content = {
        CARD: _exported(config, front, number, "card"),
        PLAN: _exported(config, front, number, "yaml"),
    }
    mirror(config.directory, uri)
    trial = files.read_record(Trial, _spec_path(config, number))
    found = register(config.directory, uri, number, name, trial.fingerprint, content)
    said = "registered" if found.is_new else "was registered before"
    return f"trial {number} {said} as version {found.version} of model {found.name} in MLflow"


def _exported(config: SweepConfig, front: Front, number: int, form: str) -> str:
    """A trial in one of the forms that are of one trial."""
    trial = files.read_record(Trial, _spec_path(config, number))
    if form == "openpi-env":
        layers = linear_layers(policy_sizes(trial.spec.policy))
        bits = select_layers(trial.spec.quant, layers)
        return as_openpi_env(trial, config.name, bits, layers)
    words = trial_words(trial, config.base)
    if form == "yaml":
        return as_plan(trial, config.name, words)
    return model_card(read_trial(_spec_path(config, number).parent), front, words)


def _spec_path(config: SweepConfig, number: int) -> Path:
    return files.trial_dir(config.directory, number) / files.SPEC_JSON


def _print_episodes(config: SweepConfig, number: int | None) -> None:
    """The search's episodes, then those of `confirm`; of one trial, or of all."""
    folders: dict[States, Path] = {
        "search": config.directory,
        "reserved": config.directory / CONFIRM_DIR,
    }
    for states, folder in folders.items():
        views = [view for view in read_trials(folder) if number in (None, view.number)]
        for line in episode_lines(views, states):
            print(line)
