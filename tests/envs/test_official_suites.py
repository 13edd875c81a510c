"""LIBERO's four suites: every task can be played, exactly, with just the files listed for it.

Objects settle where they settle under the MuJoCo that openpi pins; MuJoCo 3.4 and later eject some
of them: docs/decisions/0011-simulator.md. `settled/record_settled.py` recorded the positions with
the steps that an evaluation takes. Here physics alone runs, with the arm held by torques that
balance its weight: seven times cheaper.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import pytest
from exhaustive import EXHAUSTIVE
from official import SUITES, official_suite
from test_culling import compare

sys.path.insert(0, str(Path(__file__).parent / "settled"))
import record_settled as record

from duqsweep.envs import assets
from duqsweep.envs.asset_files import needed_files
from duqsweep.envs.libero import LiberoEnvironment, open_environment
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator
from duqsweep.envs.suite_tasks import official_tasks
from duqsweep.spec import LedgerEntry

TASKS = 10  # of each suite
STEPS = 3
UP = np.array([0, 0, 1, 0, 0, 0, -1.0])
SUBSTEPS = 25  # of one control step: 50 ms at 2 ms
SETTLED = range(0, record.STATES, 1 if EXHAUSTIVE else 5)  # initial states of each task
# Textures of full size make a simulator five times as slow to build.
SEEN = {suite: range(TASKS) if EXHAUSTIVE else [2 * i + 1] for i, suite in enumerate(SUITES)}


@dataclass(frozen=True)
class Visit:
    """What happened in the simulator of one task."""

    instruction: str
    reached_goal: bool
    last_state: np.ndarray
    risen_m: float  # of the gripper, by steps upwards
    settled: dict[int, record.Positions]  # initial state → where objects lie after idling


@dataclass(frozen=True)
class Visited:
    """All tasks of a suite, each in one simulator, with no other files than those listed."""

    suite: str
    visits: list[Visit]
    files: set[str]  # that were loaded, relative to the folder of assets


class Opened:
    """Names of the files that Python opened since it was made or cleared."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            self.names.add(arguments[0])


@pytest.fixture(scope="module")
def files() -> Opened:
    return Opened()  # an audit hook cannot be removed: one for the module


@pytest.fixture(scope="module", params=SUITES)
def visited(request: pytest.FixtureRequest, plain_official_assets: Path, files: Opened) -> Visited:
    files.names.clear()
    folder, visits = plain_official_assets, []
    prepare_libero("osmesa", folder)
    for task in official_tasks(request.param, TASKS):
        simulator = Simulator(task.bddl, task.instruction, None, record.SEED)
        files.names |= set(re.findall(r'file="([^"]+)"', simulator.env.model.get_xml()))
        visits.append(visit(simulator, task.init_states))
        simulator.close()
    loaded = {Path(os.path.abspath(name)) for name in files.names}
    inside = {str(path.relative_to(folder)) for path in loaded if path.is_relative_to(folder)}
    return Visited(request.param, visits, inside)


def visit(simulator: Simulator, init_states: np.ndarray) -> Visit:
    simulator.reset(init_states[0], record.SETTLE_STEPS, as_libero=True)
    before = simulator.observe_robot().eef_pos
    reached = [simulator.step(UP) for _ in range(STEPS)]
    risen_m = float(simulator.observe_robot().eef_pos[2] - before[2])
    last_state, settled = simulator.state(), {}
    for state in SETTLED:
        idle(simulator, init_states[state])
        settled[state] = record.positions(simulator)
    return Visit(simulator.instruction, any(reached), last_state, risen_m, settled)


def idle(simulator: Simulator, state: np.ndarray) -> None:
    """Put the simulator into a state and let ten control steps pass while the arm stays."""
    model, data = simulator.env.sim.model._model, simulator.env.sim.data._data
    robot = simulator.env.robots[0]
    mujoco.mj_resetData(model, data)
    simulator.env.sim.set_state_from_flattened(state)
    for _ in range(record.SETTLE_STEPS * SUBSTEPS):
        mujoco.mj_step1(model, data)
        bias = data.qfrc_bias[robot._ref_joint_vel_indexes]
        data.ctrl[robot._ref_joint_actuator_indexes] = bias
        mujoco.mj_step2(model, data)
    mujoco.mj_forward(model, data)


@pytest.mark.slow
def test_every_task_can_be_played(visited: Visited) -> None:
    suite = official_suite(visited.suite)
    assert [one.instruction for one in visited.visits] == assets.instructions(suite)
    for one in visited.visits:
        assert not one.reached_goal, one.instruction
        assert np.isfinite(one.last_state).all()
        assert one.risen_m > 0.005


def test_the_files_listed_for_a_suite_are_those_that_its_tasks_load(visited: Visited) -> None:
    assert visited.files == set(needed_files(visited.suite))


def test_objects_settle_where_they_do_under_mujoco_3_2_3(visited: Visited) -> None:
    recorded, far = record.read()[visited.suite], {}
    assert len(recorded) == TASKS * record.STATES
    for number, one in enumerate(visited.visits):
        assert list(one.settled) == list(SETTLED)
        for state, found in one.settled.items():
            expected = recorded[f"{number}/{state}"]
            assert expected.keys() == found.keys()
            metres = max(record.distance(expected[name], found[name]) for name in expected)
            if metres > record.SAME_M:
                far[f"{number}/{state}"] = round(metres, 4)
    assert not far, f"MuJoCo {mujoco.__version__} moves objects: task/state → metres {far}"


def entry(suite: str, task: int, state: int = 0, seed: int = 7) -> LedgerEntry:
    return LedgerEntry(i=0, suite=suite, task=task, init_state=state, seed=seed)


@contextmanager
def opened(suite: str, folder: Path) -> Iterator[LiberoEnvironment]:
    environment = open_environment(official_suite(suite, folder))
    assert isinstance(environment, LiberoEnvironment)
    yield environment
    environment.close()


def test_no_pixel_of_an_official_suite_changes(official_assets: Path) -> None:
    """By culling. The next test draws the same task: its model is compiled once."""
    suite = SUITES[0]  # with a stove that mirrors
    compare(official_suite(suite, official_assets), [SEEN[suite][0]], 2)


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_both_cameras_see_a_task(suite: str, official_assets: Path) -> None:
    """With LIBERO's own textures."""
    with opened(suite, official_assets) as environment:
        for task in SEEN[suite]:
            seen = environment.reset(entry(suite, task))
            for camera in ("agentview", "wrist"):
                assert seen.images[camera].shape == (64, 64, 3)
                assert seen.images[camera].std() > 20, f"{seen.instruction}: {camera} sees nothing"


def test_fixtures_stand_where_the_seed_puts_them_whatever_stood_before(
    plain_official_assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A microwave, which LIBERO's own reset does not put back."""
    suite, task = "libero_10", 9

    def rollout(seed: int) -> list[bytes]:
        seen = environment.reset(entry(suite, task, 3, seed))
        assert len(environment._simulators) == 1
        rng = np.random.default_rng(0)
        trace = [image.tobytes() for image in seen.images.values()]
        for _ in range(8):
            environment.step(rng.uniform(-1, 1, 7))
            trace.append(environment._current.state().tobytes())
        return trace

    with opened(suite, plain_official_assets) as environment:
        monkeypatch.setattr(environment, "_kept", 1)
        first, other = rollout(7), rollout(8)
        assert other != first
        assert other[0] != first[0]
        assert rollout(7) == first
