"""`duqsweep confirm DIR`: what the front is worth on initial states that the search never saw."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.table import Table

from duqsweep import exit_codes, files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.confirmation import confirmation, prepare, unconfirmed
from duqsweep.control.front.records import Front
from duqsweep.control.front.reserved import CONFIRM_DIR, CONFIRM_JSON, Confirmation
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.view import tables
from duqsweep.control.view.console import open_console
from duqsweep.control.view.wording import label
from duqsweep.envs.assets import RECORDED
from duqsweep.errors import ConfigError
from duqsweep.spec import Trial
from duqsweep.verbs.command import command
from duqsweep.verbs.fixed_trials import add_trust_launcher, evaluate_fixed, refuse_commands
from duqsweep.verbs.folder import keep_explained_front, sweep_config, sweep_front
from duqsweep.verbs.screens import update_screens
from duqsweep.worker.ledger import make_ledger
from duqsweep.worker.simulator import check_simulator, write_simulator


def main(arguments: list[str]) -> int:
    """Evaluate the front's trials, and the reference, on reserved states; the same command resumes.

    Returns:
        0; 2 when a trial has not played all its episodes, so that there is no answer yet; 3 when
        the policy of one failed.
    """
    parser = argparse.ArgumentParser(prog="duqsweep confirm", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument(
        "--episodes", type=int, help="episodes per trial (default: all reserved ones)"
    )
    parser.add_argument("--trials", help="numbers with commas (default: the front)")
    add_trust_launcher(parser)
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    if not parsed.trust_launcher:
        refuse_commands(config)
    if config.base.suite.name == RECORDED:
        raise ConfigError(
            f"{config.name} is of suite {RECORDED}: it has no episodes to confirm with"
        )
    simulator = check_simulator(config.directory, config.base.suite)
    ledger = make_ledger(config.base.suite, reserved=True)
    episodes = len(ledger) if parsed.episodes is None else parsed.episodes
    if not 1 <= episodes <= len(ledger):
        raise ConfigError(f"--episodes must be 1 to {len(ledger)}, got {episodes}")
    trials, reference = _chosen(config, parsed.trials)
    folder = config.directory / CONFIRM_DIR
    prepare(folder, config.directory, trials, ledger)
    write_simulator(folder, simulator)
    numbers = [trial.number for trial in trials]
    left = unconfirmed(folder, numbers, episodes)
    trouble = None
    try:
        if left:
            trouble = evaluate_fixed(
                config, folder, left, episodes, config.objectives, "confirmation"
            )
    except KeyboardInterrupt:
        print(
            "interrupted: finished episodes are kept; the same command resumes the confirmation:\n"
            f"  {command(['confirm', *arguments])}"
        )
        return exit_codes.INTERRUPTED
    code = _exit_code(folder, numbers, episodes)
    if code == exit_codes.INCOMPLETE:
        # Its intervals and tests hold for the number of episodes that was fixed beforehand.
        if trouble:
            print(trouble, file=sys.stderr)
        return code
    confirmed = confirmation(folder, reference)
    files.write_json(folder / CONFIRM_JSON, confirmed.to_json())
    # With the state of each point.
    views = read_trials(config.directory)
    front = keep_explained_front(config, views)
    _print(config, confirmed, front)
    update_screens(config, front, views)
    print(f"files: {folder}")
    return code


def _exit_code(folder: Path, trials: list[int], episodes: int) -> int:
    """0 when every trial played all its episodes; otherwise print which did not, and why."""
    views = {view.number: view for view in read_trials(folder)}
    code, unfinished = exit_codes.OK, []
    for view in (views[number] for number in trials):
        played = f"trial {view.number} played {len(view.episodes)} of {episodes} episodes"
        if view.result is not None and view.outcome == "failed":
            print(f"duqsweep: {played}: {view.result.reason}", file=sys.stderr)
            code = exit_codes.FAILED_TRIALS
        elif view.result is None or view.result.episodes < episodes:
            unfinished.append(played)
    if unfinished:
        print(
            f"duqsweep: the confirmation is incomplete: {', '.join(unfinished)}; "
            "the same command resumes it",
            file=sys.stderr,
        )
        return exit_codes.INCOMPLETE
    return code


def _chosen(config: SweepConfig, numbers: str | None) -> tuple[list[Trial], int | None]:
    """The trials to confirm, and the number of the reference among them."""
    views = {view.number: view for view in read_trials(config.directory)}
    if numbers is None:
        front = sweep_front(config)
        wanted = {point.trial for point in front.members}
        if not wanted:
            raise ConfigError(f"{config.name} has no front yet: there is nothing to confirm")
    else:
        words = numbers.split(",")
        if not all(word.isdigit() and int(word) in views for word in words):
            raise ConfigError(f"--trials must be numbers of {sorted(views)}, got {numbers!r}")
        wanted = {int(word) for word in words}
    reference = next((n for n, view in views.items() if view.trial.name == "reference"), None)
    if reference is not None:
        wanted.add(reference)
    return [views[number].trial for number in sorted(wanted)], reference


def _print(config: SweepConfig, confirmed: Confirmation, front: Front) -> None:
    confidence = confirmed.simultaneous_confidence
    title = f"{config.name} on reserved states, {confidence:.0%} intervals held jointly"
    table = Table(title=title)
    headings = ("trial", "success", "interval", "episodes", "against the reference", "p-value")
    for heading in (*headings, "state"):
        table.add_column(heading, justify="right")
    states = {point.trial: point.state for point in front.points}
    for point in confirmed.points:
        success = point.success
        rate, low, high = success.success_rate, success.success_low, success.success_high
        table.add_row(
            label(point.trial, point.name),
            "" if rate is None else f"{rate:.1%}",
            "" if low is None or high is None else f"{low:.1%} to {high:.1%}",
            str(success.counts.episodes),
            f"+{point.wins} −{point.losses}",
            "" if point.p_value is None else f"{point.p_value:.3g}",
            states.get(point.trial, ""),
        )
    console = open_console()
    console.print(table)
    margin = f"{100 * config.margin:.3g} points of success against the reference"
    console.print(f"confirmed: shown to lose at most {margin}; refuted: shown to lose more")
    categories = tables.categories_table(
        confirmed.points, f"success by category, in % ({confidence:.0%} intervals held jointly)"
    )
    if categories is not None:
        console.print(categories)
