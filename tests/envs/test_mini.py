"""The suite `duq_mini`: goals, initial states, and an expert that solves it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from exhaustive import EXHAUSTIVE

from duqsweep.envs.mini.make_init_states import make_states
from duqsweep.envs.mini.suite import ASSETS, INIT_STATES, TASKS
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator

TABLE_Z = 0.90
UP = [1.0, 0.0, 0.0, 0.0]
LYING = [0.7071, 0.7071, 0.0, 0.0]
SETTLE = 5


@pytest.fixture(scope="module")
def simulators() -> Iterator[list[Simulator]]:
    prepare_libero("osmesa", ASSETS)
    from duqsweep.envs.mini import problem  # noqa: F401

    built = [Simulator(task.bddl, task.instruction, image_px=None) for task in TASKS]
    yield built
    for simulator in built:
        simulator.close()


def put(simulator: Simulator, name: str, xyz, quaternion=UP) -> None:
    """Move object `name` there, at rest."""
    joint = simulator.env.objects_dict[name].joints[-1]
    simulator.env.sim.data.set_joint_qpos(joint, [*xyz, *quaternion])
    simulator.env.sim.data.set_joint_qvel(joint, np.zeros(6))
    simulator.env.sim.forward()


def begin(simulator: Simulator, task: int) -> None:
    simulator.reset(TASKS[task].init_states()[0], SETTLE)
    assert not simulator.goal_holds()


@pytest.mark.parametrize(("task", "cube", "other"), [(0, "red", "blue"), (1, "blue", "red")])
def test_only_the_named_cube_in_the_tray_counts(simulators, task, cube, other):
    simulator = simulators[task]
    begin(simulator, task)
    tray, _ = simulator.body_pose("tray_1")
    inside = [tray[0], tray[1], TABLE_Z + 0.032]
    put(simulator, f"{other}_cube_1", inside)
    assert not simulator.goal_holds()
    begin(simulator, task)
    put(simulator, f"{cube}_cube_1", inside)
    assert simulator.goal_holds()


def test_the_plate_counts_inside_the_zone_only(simulators):
    simulator = simulators[2]
    begin(simulator, 2)
    put(simulator, "plate_1", [0.13, 0.03, TABLE_Z + 0.01])
    assert simulator.goal_holds()
    put(simulator, "plate_1", [0.13, 0.05, TABLE_Z + 0.01])
    assert not simulator.goal_holds()


def test_a_stack_counts_once_it_stands_and_the_hand_has_left(simulators):
    simulator = simulators[3]
    begin(simulator, 3)
    block, _ = simulator.body_pose("green_block_1")
    top = block[2] + 0.025 + 0.0219
    put(simulator, "red_cube_1", [block[0] + 0.01, block[1], top])
    assert simulator.goal_holds()
    put(simulator, "red_cube_1", [block[0] + 0.04, block[1], top])
    assert not simulator.goal_holds()
    seen = simulator.observe_robot()
    put(simulator, "red_cube_1", seen.eef_pos)
    put(simulator, "green_block_1", seen.eef_pos - [0.0, 0.0, 0.0469])
    assert not simulator.goal_holds()


def test_the_peg_counts_in_the_cup_not_on_its_rim(simulators):
    simulator = simulators[4]
    begin(simulator, 4)
    cup, _ = simulator.body_pose("cup_1")
    put(simulator, "yellow_peg_1", [cup[0], cup[1], TABLE_Z + 0.055])
    assert simulator.goal_holds()
    put(simulator, "yellow_peg_1", [cup[0] + 0.02, cup[1], TABLE_Z + 0.085])
    assert not simulator.goal_holds()


def test_either_zone_will_do_while_the_post_stands(simulators):
    simulator = simulators[5]
    for y, expected in [(0.165, True), (-0.165, True), (0.0, False)]:
        begin(simulator, 5)
        put(simulator, "red_cube_1", [0.04, y, TABLE_Z + 0.022])
        assert simulator.goal_holds() is expected
    put(simulator, "red_cube_1", [0.04, 0.165, TABLE_Z + 0.022])
    put(simulator, "purple_post_1", [0.01, 0.0, TABLE_Z + 0.014], LYING)
    assert not simulator.goal_holds()


def test_going_straight_between_the_two_zones_fails(simulators, expert):
    """What a single denoising step does: the mean of both ways."""
    simulator = simulators[5]
    begin(simulator, 5)
    for _ in range(125):
        mean = (expert.label(simulator, 5, 1) + expert.label(simulator, 5, -1)) / 2
        assert not simulator.step(mean)
    assert simulator.body_pose("purple_post_1")[1][2, 2] < 0.9


@pytest.mark.parametrize("task", range(len(TASKS)))
def test_the_expert_solves_every_task(simulators, expert, task):
    simulator = simulators[task]
    begin(simulator, task)
    assert any(simulator.step(expert.label(simulator, task, 1)) for _ in range(90))


def test_two_tasks_share_a_scene_and_differ_in_words():
    red, blue = TASKS[0], TASKS[1]
    assert np.array_equal(red.init_states(), blue.init_states())
    scene = [
        re.sub(r"\(:(language|obj_of_interest|goal).*", "", t.bddl.read_text()) for t in (red, blue)
    ]
    assert scene[0] == scene[1]
    assert red.instruction.replace("red", "blue") == blue.instruction


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_initial_states_are_where_the_seeded_script_places_things(simulators, task):
    """To how they settled: the states are data, as LIBERO's are, saved under MuJoCo 3.8.1."""
    shipped = task.init_states()
    assert shipped.shape[0] == INIT_STATES
    assert shipped.dtype == np.float64
    assert len(np.unique(shipped, axis=0)) == INIT_STATES
    positions = slice(1, 1 + simulators[TASKS.index(task)].env.sim.model.nq)
    made = make_states(task, 2)
    np.testing.assert_allclose(made[:, positions], shipped[:2, positions], rtol=0, atol=5e-3)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_nothing_moves_while_an_episode_settles(simulators, task, suite):
    """Under the pinned MuJoCo, as LIBERO's own states are held to, and as many of them."""
    simulator = simulators[TASKS.index(task)]
    for state in task.init_states()[:: 1 if EXHAUSTIVE else 5]:
        simulator.reset(state, 0)
        before = {name: simulator.body_pose(name)[0] for name in simulator.env.objects_dict}
        simulator.reset(state, suite.settle_steps)
        moved = [np.linalg.norm(simulator.body_pose(n)[0] - p) for n, p in before.items()]
        assert max(moved) < 5e-3  # metres; the plate rocks by 3 mm


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_instruction_is_the_bddl_files(task):
    assert f"(:language {task.instruction})" in task.bddl.read_text()


def test_its_names_take_none_of_liberos_away():
    """A process may play our suite and then an official one."""
    code = (
        "from pathlib import Path; from duqsweep.envs.setup import prepare_libero;"
        "prepare_libero('osmesa', Path('.'));"
        "from libero.libero.envs.base_object import OBJECTS_DICT as objects;"
        "from libero.libero.envs.predicates import VALIDATE_PREDICATE_FN_DICT as predicates;"
        "theirs = dict(objects), dict(predicates);"
        "import duqsweep.envs.mini.problem;"
        "assert len(objects) > len(theirs[0]) and len(predicates) > len(theirs[1]);"
        "assert all(objects[name] is item for name, item in theirs[0].items());"
        "assert all(predicates[name] is item for name, item in theirs[1].items())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
