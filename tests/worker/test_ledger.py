"""The ledger: balanced, complete, reproducible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.errors import SpecError
from duqsweep.files import write_json
from duqsweep.spec import MAX_SEED, SuiteSpec
from duqsweep.worker.ledger import looked_at, make_ledger, read_ledger, write_ledger

FIRST_BLOCK = [(1, 24), (5, 7), (2, 14), (3, 2), (0, 2), (4, 20)]
LAST_RESERVED_BLOCK = [(1, 45), (3, 34), (5, 28), (0, 33), (2, 45), (4, 32)]


def suite(tasks: int = 6, init_states: int = 50, seed: int = 7) -> SuiteSpec:
    return SuiteSpec(
        name="duq_mini",
        tasks=tasks,
        init_states=init_states,
        image_px=64,
        max_steps=10,
        nominal_steps=10,
        settle_steps=1,
        replan_steps=5,
        seed=seed,
    )


@given(st.integers(1, 12), st.integers(2, 50), st.integers(0, MAX_SEED), st.booleans())
def test_every_block_holds_every_task_once(
    tasks: int, states: int, seed: int, reserved: bool
) -> None:
    entries = make_ledger(suite(tasks, states, seed), reserved)
    for start in range(0, len(entries), tasks):
        assert sorted(e.task for e in entries[start : start + tasks]) == list(range(tasks))
    assert [e.i for e in entries] == list(range(len(entries)))


@given(st.integers(1, 12), st.integers(2, 50), st.integers(0, MAX_SEED))
def test_search_and_reserved_ledgers_split_all_states_between_them(
    tasks: int, states: int, seed: int
) -> None:
    given_suite = suite(tasks, states, seed)
    searched = {(e.task, e.init_state) for e in make_ledger(given_suite)}
    reserved = {(e.task, e.init_state) for e in make_ledger(given_suite, reserved=True)}
    assert not searched & reserved
    assert searched | reserved == {(t, s) for t in range(tasks) for s in range(states)}
    assert len(make_ledger(given_suite)) == len(searched)


NAMES = ("original", "language", "object", "swap", "task")


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, MAX_SEED), st.booleans())
def test_categories_take_turns(tasks: int, count: int, seed: int, reserved: bool) -> None:
    given_suite = replace(suite(tasks, 10, seed), categories=NAMES[:count])
    entries = make_ledger(given_suite, reserved)
    assert len(entries) == 5 * tasks * count
    told = [given_suite.category(entry.task) for entry in entries]
    for start in range(0, len(entries), count):
        assert sorted(told[start : start + count]) == sorted(NAMES[:count])
    for start in range(0, len(entries), tasks * count):
        block = [entry.task for entry in entries[start : start + tasks * count]]
        assert sorted(block) == list(range(tasks * count))
    assert len({(entry.task, entry.init_state) for entry in entries}) == len(entries)


@given(
    st.integers(1, 12),
    st.integers(2, 50),
    st.integers(0, 5),
    st.integers(0, MAX_SEED),
    st.sampled_from(("own", "openpi", "lerobot")),
)
def test_what_is_looked_at_is_the_same_for_every_seed_and_confirmed_last(
    tasks: int,
    states: int,
    count: int,
    seed: int,
    protocol: Literal["own", "openpi", "lerobot"],
) -> None:
    given_suite = replace(suite(tasks, states, seed), categories=NAMES[:count], protocol=protocol)
    seen = looked_at(given_suite)
    assert seen == looked_at(replace(given_suite, seed=7))
    assert sorted(entry.task for entry in seen) == list(range(tasks))  # of the first category
    reserved = make_ledger(given_suite, reserved=True)
    places = {(entry.task, entry.init_state): entry.i for entry in reserved}
    last_block = len(reserved) - given_suite.total_tasks
    assert all(places[entry.task, entry.init_state] >= last_block for entry in seen)
    assert all(entry.seed == given_suite.episode_seed(entry.init_state) for entry in reserved)
    moving = protocol == "lerobot"
    assert all(entry.seed == 7 + moving * entry.init_state for entry in seen)


def test_the_reserved_order_is_as_random_as_before_but_for_its_end() -> None:
    """Only the place of the last state has changed, and only in the ledger of another seed."""
    orders = {seed: _states_of_task(0, suite(seed=seed)) for seed in range(40)}
    assert {order[-1] for order in orders.values()} == {orders[7][-1]}
    assert len({order[0] for order in orders.values()}) > 10
    assert len({order[-2] for order in orders.values()}) > 10


def _states_of_task(task: int, of: SuiteSpec) -> list[int]:
    return [e.init_state for e in make_ledger(of, reserved=True) if e.task == task]


def test_one_category_is_walked_as_a_suite_without_any() -> None:
    assert make_ledger(replace(suite(), categories=("task",))) == make_ledger(suite())


def test_the_same_suite_gives_the_same_ledger_and_another_seed_another() -> None:
    assert make_ledger(suite()) == make_ledger(suite())
    assert make_ledger(suite(seed=8)) != make_ledger(suite(seed=7))


def test_the_order_is_frozen_for_seed_7() -> None:
    # A changed order would unpair old and new trials of a sweep that is resumed.
    first = [(e.task, e.init_state) for e in make_ledger(suite())[:6]]
    assert first == FIRST_BLOCK
    # Recorded observations show these states, and a confirmation that has begun plays them last.
    last = [(e.task, e.init_state) for e in make_ledger(suite(), reserved=True)[-6:]]
    assert last == LAST_RESERVED_BLOCK


def test_a_ledger_survives_its_file(tmp_path: Path) -> None:
    entries = make_ledger(suite())
    write_ledger(tmp_path / "ledger.json", entries)
    assert read_ledger(tmp_path / "ledger.json") == entries


def test_a_ledger_with_a_hole_is_refused(tmp_path: Path) -> None:
    entries = make_ledger(suite())
    write_ledger(tmp_path / "ledger.json", entries[1:])
    with pytest.raises(SpecError, match="must have i = 0, got 1"):
        read_ledger(tmp_path / "ledger.json")


def test_a_ledger_that_is_no_list_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "ledger.json", {})
    with pytest.raises(SpecError, match="must hold a list"):
        read_ledger(tmp_path / "ledger.json")
