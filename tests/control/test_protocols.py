"""LIBERO is evaluated as openpi or LeRobot do it (docs/protocols.md)."""

from __future__ import annotations

import pytest

from duqsweep.control.config.sweep_config import compose
from duqsweep.errors import ConfigError
from duqsweep.spec import SuiteSpec
from duqsweep.worker.ledger import make_ledger

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


def suite_of(*overrides: str) -> SuiteSpec:
    return compose(["name=protocols", "enqueue=[reference]", *overrides]).base.suite


def constants(*overrides: str) -> tuple[int, int, int, int]:
    """Maximum steps, settle steps, side of the pictures in pixels, actions per call."""
    found = suite_of(*overrides)
    return found.max_steps, found.settle_steps, found.image_px, found.replan_steps


@pytest.mark.parametrize(
    ("suite", "steps"), list(zip(SUITES, (220, 280, 300, 520), strict=True)), ids=SUITES
)
def test_openpi_is_the_default(suite: str, steps: int):
    assert suite_of(f"suite={suite}").protocol == "openpi"
    assert constants(f"suite={suite}") == (steps, 10, 256, 5)


@pytest.mark.parametrize(
    ("suite", "steps"), list(zip(SUITES, (280, 280, 300, 520), strict=True)), ids=SUITES
)
def test_lerobot_is_followed_where_it_differs(suite: str, steps: int):
    assert constants(f"suite={suite}", "suite.protocol=lerobot") == (steps, 10, 360, 10)


def test_a_single_constant_can_still_be_set():
    found = constants("suite=libero_10", "suite.protocol=lerobot", "suite.max_steps=40")
    assert found == (40, 10, 360, 10)


def test_an_unknown_protocol_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"libero_10 must be one of openpi, lerobot, got 'hf'"):
        suite_of("suite=libero_10", "suite.protocol=hf")
    with pytest.raises(ConfigError, match=r"duq_mini must be one of own, got 'openpi'"):
        suite_of("suite.protocol=openpi")


def test_openpi_seeds_a_tasks_environment_once_and_lerobot_each_episode():
    openpi = make_ledger(suite_of("suite=libero_goal", "seed=7"))
    assert {entry.seed for entry in openpi} == {7}
    lerobot = make_ledger(suite_of("suite=libero_goal", "suite.protocol=lerobot", "seed=1000"))
    assert all(entry.seed == 1000 + entry.init_state for entry in lerobot)


def test_the_protocol_changes_what_a_sweep_is():
    assert suite_of("suite=libero_goal") != suite_of("suite=libero_goal", "suite.protocol=lerobot")
