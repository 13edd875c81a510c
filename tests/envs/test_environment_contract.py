"""The contract of `seams.Environment`, for our suite, one of LIBERO's and one of LIBERO-PRO's.

The suite `recorded` holds observations and no episodes: it opens no environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from official import find_official_assets, official_suite
from plain import write_plain_assets
from pro import check_pro_assets, find_pro_files, pro_suite

from duqsweep.envs.libero import LiberoEnvironment, open_environment
from duqsweep.envs.simulator import IDLE, Simulator
from duqsweep.errors import ConfigError, EvaluationError, InfrastructureError
from duqsweep.seams import Observation
from duqsweep.spec import LedgerEntry, SuiteSpec

Array = NDArray[np.float64]

CONTROL_STEP_S = 0.05
STEPS = 8  # of a traced episode
KINDS = {"duq_mini": 2, "libero_object": 3, "libero_pro_object": 23}  # suite → the task played


@dataclass(frozen=True)
class Played:
    """An environment, and the entry that most tests play."""

    suite: SuiteSpec
    entry: LedgerEntry
    environment: LiberoEnvironment

    @property
    def simulator(self) -> Simulator:
        simulator = self.environment._current
        assert simulator is not None
        return simulator

    def reset(self, **changes: int | str) -> Observation:
        return self.environment.reset(replace(self.entry, **changes))

    def trace(self) -> list[Array]:
        """The simulator's state after a reset and after each of some random actions."""
        self.reset()
        states = [self.simulator.state()]
        for action in np.random.default_rng(0).uniform(-1, 1, (STEPS, 7)):
            self.environment.step(action)
            states.append(self.simulator.state())
        return states


def suite_of(name: str, ours: SuiteSpec, folder: Path) -> SuiteSpec:
    if name == ours.name:
        return ours
    assets = find_official_assets().resolve()
    if not name.startswith("libero_pro"):
        write_plain_assets(assets, folder, [name])
        return official_suite(name, folder)
    check_pro_assets(assets)
    write_plain_assets(assets, folder, [name])
    return pro_suite(name, folder, find_pro_files())


@pytest.fixture(scope="module", params=KINDS)
def played(
    request: pytest.FixtureRequest, suite: SuiteSpec, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    opened = suite_of(request.param, suite, tmp_path_factory.mktemp(request.param))
    environment = open_environment(opened)
    assert isinstance(environment, LiberoEnvironment)
    entry = LedgerEntry(0, opened.name, KINDS[request.param], init_state=3, seed=7)
    yield Played(opened, entry, environment)
    environment.close()


def assert_same(one: Observation, other: Observation) -> None:
    assert one.images.keys() == other.images.keys()
    for camera, image in one.images.items():
        assert np.array_equal(image, other.images[camera]), camera
    for name in ("eef_pos", "eef_quat", "gripper_qpos"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.instruction == other.instruction


def bring_the_goal_about(simulator: Simulator) -> None:
    """Move the plate into its zone, or the thing that the task names into the basket."""
    ((relation, thing, region),) = simulator.env.parsed_problem["goal_state"]
    if relation == "in":
        basket, _ = simulator.body_pose(region.removesuffix("_contain_region"))
        there = [*basket[:2], basket[2] + 0.1]
    else:
        there = [0.13, 0.03, 0.91]
    joint = simulator.env.objects_dict[thing].joints[-1]
    simulator.env.sim.data.set_joint_qpos(joint, [*there, 1.0, 0.0, 0.0, 0.0])
    simulator.env.sim.data.set_joint_qvel(joint, np.zeros(6))
    simulator.env.sim.forward()


def test_an_observation_is_two_pictures_a_pose_and_the_instruction(played: Played) -> None:
    seen = played.reset()
    side = played.suite.image_px
    assert set(seen.images) == {"agentview", "wrist"}
    for image in seen.images.values():
        assert (image.shape, image.dtype) == ((side, side, 3), np.uint8)
    assert (seen.eef_pos.shape, seen.eef_quat.shape, seen.gripper_qpos.shape) == ((3,), (4,), (2,))
    assert np.linalg.norm(seen.eef_quat) == pytest.approx(1.0)
    assert np.ptp(seen.gripper_qpos) > 0.07  # settled with the gripper open
    assert seen.instruction == played.environment._tasks[played.entry.task].instruction


def test_reset_begins_in_the_initial_state_of_the_entry(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = played.environment._tasks[played.entry.task].init_states
    played.reset()
    settled = played.simulator.state()
    settle_s = played.suite.settle_steps * CONTROL_STEP_S
    assert settled[0] == pytest.approx(states[played.entry.init_state][0] + settle_s)
    monkeypatch.setattr(played.environment, "_suite", replace(played.suite, settle_steps=0))
    for number in (played.entry.init_state, played.suite.init_states - 1):
        played.reset(init_state=number)
        assert np.array_equal(played.simulator.state(), states[number])


def test_reset_gives_the_same_observation_whatever_was_played_before(played: Played) -> None:
    first = played.reset()
    assert_same(played.environment.observe(), first)
    for action in np.random.default_rng(1).uniform(-1, 1, (STEPS, 7)):
        played.environment.step(action)
    assert not np.array_equal(played.environment.observe().eef_pos, first.eef_pos)
    played.reset(task=played.entry.task + 1, init_state=0)
    assert_same(played.reset(), first)


def test_pictures_stay_the_same_where_other_simulators_are_built_and_closed(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.environment.close()
    monkeypatch.setattr(played.environment, "_kept", 2)
    played.reset(task=played.entry.task + 1)
    first = played.reset()
    played.reset(task=played.entry.task - 1)
    assert_same(played.reset(), first)


def test_the_same_actions_give_the_same_states_to_the_bit(played: Played) -> None:
    first = played.trace()
    assert len({state.tobytes() for state in first}) == STEPS + 1
    played.reset(init_state=0)
    assert np.array_equal(played.trace(), first)


def test_a_step_takes_one_control_step_and_moves_as_the_action_says(played: Played) -> None:
    before = played.reset().eef_pos
    start_s = played.simulator.state()[0]
    for step in range(1, STEPS + 1):
        played.environment.step(np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]))
        assert played.simulator.state()[0] == pytest.approx(start_s + step * CONTROL_STEP_S)
    assert played.simulator.observe_robot().eef_pos[2] > before[2] + 0.005  # metres


def test_actions_beyond_the_limits_act_as_the_limits_do(played: Played) -> None:
    ends = []
    for size in (1.0, 5.0):
        played.reset()
        played.environment.step(size * np.array([0.0, -1.0, 1.0, 0.0, 0.0, 1.0, -1.0]))
        ends.append(played.simulator.state())
    assert np.array_equal(*ends)


def test_success_is_what_the_simulator_says(played: Played) -> None:
    played.reset()
    assert not played.environment.step(IDLE)
    assert not played.simulator.env._check_success()
    bring_the_goal_about(played.simulator)
    assert played.environment.step(IDLE)
    assert played.simulator.env._check_success()
    played.reset()
    assert not played.environment.step(IDLE)


def test_closing_twice_is_harmless_and_what_is_built_anew_plays_the_same(played: Played) -> None:
    seen, states = played.reset(), played.trace()
    played.environment.close()
    played.environment.close()
    with pytest.raises(EvaluationError, match="call reset first"):
        played.environment.step(IDLE)
    with pytest.raises(EvaluationError, match="call reset first"):
        played.environment.observe()
    assert_same(played.reset(), seen)
    assert np.array_equal(played.trace(), states)


@pytest.mark.parametrize("action", [np.full(7, np.nan), np.zeros(6)], ids=["nan", "too short"])
def test_an_impossible_action_is_the_policys_fault(played: Played, action: Array) -> None:
    played.reset()
    before = played.simulator.state()
    with pytest.raises(EvaluationError, match="an action is 7 finite numbers") as raised:
        played.environment.step(action)
    assert not isinstance(raised.value, InfrastructureError)
    assert np.array_equal(played.simulator.state(), before)


def test_an_unknown_task_state_or_suite_is_refused_by_name(played: Played) -> None:
    name, tasks, states = played.suite.name, played.suite.total_tasks, played.suite.init_states
    with pytest.raises(ConfigError, match=f"{name} has {tasks} tasks, no task {tasks}$"):
        played.reset(task=tasks)
    with pytest.raises(ConfigError, match=r"no task -1$"):
        played.reset(task=-1)
    said = f"{name} task {played.entry.task} has initial states 0 to {states - 1}, not {states}$"
    with pytest.raises(ConfigError, match=said):
        played.reset(init_state=states)
    with pytest.raises(ConfigError, match=f"suite 'another'; this is '{name}'"):
        played.reset(suite="another")


def test_the_suite_recorded_has_no_episodes_to_play(suite: SuiteSpec) -> None:
    with pytest.raises(ConfigError, match="recorded holds observations and no episodes to play"):
        open_environment(replace(suite, name="recorded"))
