"""The episodes that every trial of a sweep runs, in one shuffled order."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from duqsweep.codec import decode, encode
from duqsweep.errors import ConfigError, EvaluationError, SpecError
from duqsweep.files import read_json, write_json
from duqsweep.spec import LedgerEntry, SuiteSpec

# Of the episodes that are looked at, and of the noise that actions are compared with: sweeps with
# different seeds calibrate alike, and their action errors can be compared.
LOOKED_AT_SEED = SuiteSpec.seed


def make_ledger(suite: SuiteSpec, reserved: bool = False) -> list[LedgerEntry]:
    """Every episode that a suite allows, shuffled with its seed.

    Each consecutive block of `total_tasks` entries holds every task once, so that a prefix of any
    length is balanced over the tasks. Where the suite has categories, each consecutive run of as
    many entries holds every category once. No (task, initial state) occurs twice. Of the
    reserved states, those that `looked_at` names come last with every seed.

    Args:
        suite: The suite, its numbers of tasks and initial states, and the seed of the order.
        reserved: Take the initial states that a search never uses instead of those that it does.
    """
    states = range(suite.search_states)
    if reserved:
        states = range(suite.search_states, suite.init_states)
    # A text seeds Python's generator through SHA-512: equal on every machine and version.
    order = random.Random(f"ledger/{suite.seed}/{'reserved' if reserved else 'search'}")
    columns = [order.sample(states, len(states)) for _ in range(suite.total_tasks)]
    if reserved and suite.seed != LOOKED_AT_SEED:
        for entry in looked_at(suite):
            columns[entry.task].remove(entry.init_state)
            columns[entry.task].append(entry.init_state)
    entries: list[LedgerEntry] = []
    for block in range(len(states)):
        for task in _block(suite, order):
            entries.append(
                LedgerEntry(
                    i=len(entries),
                    suite=suite.name,
                    task=task,
                    init_state=columns[task][block],
                    seed=suite.episode_seed(columns[task][block]),
                )
            )
    return entries


def looked_at(suite: SuiteSpec) -> list[LedgerEntry]:
    """The episodes that fixed observations show, one a task: the same ones for every seed.

    They end the reserved ledger of seed `LOOKED_AT_SEED`. Their states end that of any other seed,
    so a confirmation reaches last what a policy was calibrated on. Where the suite has categories,
    only the first is looked at: a policy is calibrated on what it knows, and the others are there
    to test it.
    """
    default = replace(suite, seed=LOOKED_AT_SEED)
    last = make_ledger(default, reserved=True)[-suite.total_tasks :]
    return [entry for entry in last if entry.task < suite.tasks]


def _block(suite: SuiteSpec, order: random.Random) -> list[int]:
    """Every task once, shuffled; categories take turns, in another order each time."""
    categories = range(max(1, len(suite.categories)))
    shuffled = [order.sample(range(suite.tasks), suite.tasks) for _ in categories]
    if len(shuffled) == 1:
        return shuffled[0]
    return [
        category * suite.tasks + shuffled[category][turn]
        for turn in range(suite.tasks)
        for category in order.sample(categories, len(categories))
    ]


def write_ledger(path: Path, entries: list[LedgerEntry]) -> None:
    """Replace the ledger at `path`, whole or not at all."""
    write_json(path, [encode(entry) for entry in entries])


def check_ledger(path: Path, entries: list[LedgerEntry]) -> None:
    """Raise ConfigError unless `path` holds these entries, or no file is there yet."""
    try:
        begun = read_ledger(path) if path.exists() else entries
    except (SpecError, EvaluationError) as error:
        raise ConfigError(f"{error}; delete the file: the next start writes it again") from error
    if begun != entries:
        raise ConfigError(
            f"{path} does not hold the episodes that this sweep plays, in its order; delete the "
            "file if somebody changed it: the next start writes it again"
        )


def read_ledger(path: Path) -> list[LedgerEntry]:
    """The ledger at `path`.

    Raises:
        SpecError: It is not a list of entries numbered from 0 in order.
        FileNotFoundError: There is no such file.
    """
    data = read_json(path)
    if not isinstance(data, list):
        raise SpecError(f"{path} must hold a list of episodes, got {type(data).__name__}")
    entries = [decode(LedgerEntry, item, f"{path}[{i}]") for i, item in enumerate(data)]
    for i, entry in enumerate(entries):
        if entry.i != i:
            raise SpecError(f"entry {i} of {path} must have i = {i}, got {entry.i}")
    return entries
