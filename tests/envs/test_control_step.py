"""`ControlStep` and `ContactCheck` give what robosuite and LIBERO give, to the bit."""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from exhaustive import EXHAUSTIVE, exhaustive
from numpy.typing import NDArray
from official import SUITES
from plain import write_plain_assets
from pro import find_pro_files, pro_suite
from robosuite_path import RobosuiteSimulator

sys.path.insert(0, str(Path(__file__).parent / "recorded"))
from record_episodes import EPISODES, Arm, Move

from duqsweep.envs.mini import suite as mini
from duqsweep.envs.pro_objects import register_pro_objects
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator
from duqsweep.envs.suite_tasks import SuiteTask, official_tasks, suite_tasks
from duqsweep.errors import InfrastructureError

Array = NDArray[np.float64]
Record = list[dict[str, Array]]

RANDOM_EPISODES = 20 if EXHAUSTIVE else 1  # of each suite
RANDOM_STEPS = 30
HELD_STEPS = 5  # of one random action: the arm gets somewhere, and into something
SEED = 7
# What can be read after a step; positions of bodies are those before the last substep, in both.
FIELDS = (
    "time", "qpos", "qvel", "qacc", "qacc_warmstart", "ctrl", "act", "qfrc_bias", "qfrc_actuator",
    "qfrc_constraint", "sensordata", "xpos", "xquat", "geom_xpos", "site_xpos", "site_xmat",
    "cam_xpos", "ncon", "nefc",
)  # fmt: skip
MOVES = {
    "libero_spatial": [(t, Move("akita_black_bowl_1", "plate_1", rim=True)) for t in (0, 4, 8)],
    "libero_object": [
        (0, Move("alphabet_soup_1", "basket_1")),
        (3, Move("bbq_sauce_1", "basket_1")),
        (9, Move("orange_juice_1", "basket_1")),
    ],
    "libero_goal": [
        (1, Move("akita_black_bowl_1", "plate_1", rim=True)),
        (6, Move("cream_cheese_1", "akita_black_bowl_1")),
        (9, Move("wine_bottle_1", "plate_1")),
    ],
    "libero_10": [
        (1, Move("cream_cheese_1", "basket_1")),
        (1, Move("butter_1", "basket_1")),
        (0, Move("tomato_sauce_1", "basket_1")),
    ],
}


@dataclass
class Pair:
    """One task twice: stepped by duqsweep, and by robosuite."""

    ours: Simulator
    theirs: RobosuiteSimulator
    settle_steps: int
    as_libero: bool

    def reset(self, simulator: Simulator, state: Array) -> None:
        simulator.reset(state, self.settle_steps, as_libero=self.as_libero)

    def play(self, simulator: Simulator, state: Array, actions: Array) -> Record:
        self.reset(simulator, state)
        record = [everything(simulator, False)]
        for action in actions:
            record.append(everything(simulator, simulator.step(action)))
        return record

    def assert_equal(self, state: Array, actions: Array) -> None:
        """Of duqsweep's both ways of a reset: the first one settles, the second one remembers."""
        theirs = self.play(self.theirs, state, actions)
        self.ours._settled.clear()
        for way in ("settled", "remembered"):
            ours = self.play(self.ours, state, actions)
            for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                for name, value in one.items():
                    same = np.array_equal(value, other[name])
                    assert same, f"{way}: {name} differs after step {step}"
        assert len(self.ours._settled) == 1


def everything(simulator: Simulator, done: bool) -> dict[str, Array]:
    """All that anything reads after a step."""
    env = simulator.env
    found = {name: np.array(getattr(env.sim.data._data, name)) for name in FIELDS}
    seen = simulator.observe_robot()
    found |= {name: getattr(seen, name) for name in ("eef_pos", "eef_quat", "gripper_qpos")}
    found["site_rgba"] = np.array(env.sim.model._model.site_rgba)  # a stove's flame
    found["of the episode"] = np.array([done, env.timestep, env.cur_time, env.done])
    return found


@contextmanager
def opened(task: SuiteTask, settle_steps: int, as_libero: bool = True) -> Iterator[Pair]:
    ours = Simulator(task.bddl, task.instruction, None, SEED)
    theirs = RobosuiteSimulator(task.bddl, task.instruction, SEED)
    yield Pair(ours, theirs, settle_steps, as_libero)
    ours.close()
    theirs.close()


def mini_tasks() -> list[SuiteTask]:
    prepare_libero("osmesa", mini.ASSETS)
    from duqsweep.envs.mini import problem  # noqa: F401

    return [SuiteTask(t.bddl, t.instruction, t.init_states()) for t in mini.TASKS]


def random_actions(number: int) -> Array:
    """(RANDOM_STEPS, 7); some do not turn, some exceed the limits."""
    rng = np.random.default_rng(number)
    actions = rng.uniform(-1.2, 1.2, (-(-RANDOM_STEPS // HELD_STEPS), 7))
    actions[::3, 3:6] = 0.0
    actions[0, 2] = -1.0  # towards the table
    return np.repeat(actions, HELD_STEPS, axis=0)[:RANDOM_STEPS]


def random_episodes(tasks: list[SuiteTask], settle_steps: int, as_libero: bool) -> None:
    for number, task in enumerate(tasks[:RANDOM_EPISODES]):
        with opened(task, settle_steps, as_libero) as pair:
            for episode in range(number, RANDOM_EPISODES, len(tasks)):
                pair.assert_equal(task.init_states[episode], random_actions(episode))


@pytest.mark.slow
def test_random_episodes_of_our_suite_are_robosuites():
    random_episodes(mini_tasks(), 5, as_libero=False)


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_random_episodes_of_an_official_suite_are_robosuites(
    suite: str, plain_official_assets: Path
):
    prepare_libero("osmesa", plain_official_assets)
    random_episodes(official_tasks(suite, 10), 10, as_libero=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [
        pytest.param(0, marks=exhaustive),
        pytest.param(2, marks=exhaustive),
        3,
        pytest.param(4, marks=exhaustive),
    ],
)
def test_an_experts_episode_is_robosuites(task: int, expert: SimpleNamespace):
    about = mini_tasks()[task]
    with opened(about, 5, as_libero=False) as pair:
        pair.reset(pair.ours, about.init_states[1])
        actions, done = [], False
        while not done and len(actions) < 125:
            actions.append(np.clip(expert.label(pair.ours, task, 1), -1.0, 1.0))
            done = pair.ours.step(actions[-1])
        assert done
        pair.assert_equal(about.init_states[1], np.array(actions))


@pytest.mark.slow
@pytest.mark.parametrize(
    "episode",
    [
        pytest.param(
            episode,
            marks=[] if episode.suite == "libero_goal" else exhaustive,  # the shortest
            id=episode.file.stem,
        )
        for episode in EPISODES
    ],
)
def test_a_recorded_episode_is_robosuites(episode, plain_official_assets: Path):
    prepare_libero("osmesa", plain_official_assets)
    task = official_tasks(episode.suite, 10)[episode.task]
    with opened(task, 10) as pair:
        actions = np.load(episode.file).astype(np.float64)
        pair.assert_equal(task.init_states[episode.state], actions)


@exhaustive
@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "task", "move"),
    [(suite, *of_task) for suite, moves in MOVES.items() for of_task in moves],
    ids=lambda value: value.thing if isinstance(value, Move) else str(value),
)
def test_a_scripted_episode_is_robosuites(
    suite: str, task: int, move: Move, plain_official_assets: Path
):
    prepare_libero("osmesa", plain_official_assets)
    about = official_tasks(suite, 10)[task]
    with opened(about, 10) as pair:
        pair.reset(pair.ours, about.init_states[2])
        arm = Arm(pair.ours)
        arm.run(move)
        pair.assert_equal(about.init_states[2], np.array(arm.actions, dtype=np.float64))


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite", ["libero_pro_goal", pytest.param("libero_pro_10", marks=exhaustive)]
)
def test_tasks_of_categories_of_libero_pro_are_stepped_as_robosuite_does(
    suite: str, official_assets: Path, tmp_path: Path
):
    write_plain_assets(official_assets.resolve(), tmp_path, [suite])
    prepare_libero("osmesa", tmp_path)
    register_pro_objects()
    suite_spec = pro_suite(suite, tmp_path, find_pro_files())
    categories = range(0, 5, 1 if EXHAUSTIVE else 2)
    tasks = suite_tasks(suite_spec)
    for task in [tasks[10 * category + 8] for category in categories]:
        with opened(task, 10) as pair:
            pair.assert_equal(task.init_states[0], random_actions(1))


def test_contacts_of_all_objects_are_those_that_robosuite_finds(plain_official_assets: Path):
    prepare_libero("osmesa", plain_official_assets)
    task = official_tasks("libero_spatial", 10)[5]  # one bowl stands on a ramekin
    with opened(task, 10) as pair:
        pair.reset(pair.ours, task.init_states[0])
        pair.reset(pair.theirs, task.init_states[0])
        touching = []
        for action in random_actions(2):
            pair.ours.step(action)
            pair.theirs.step(action)
            for ours, theirs in zip(pairs_of(pair.ours), pairs_of(pair.theirs), strict=True):
                touches = pair.ours.env.check_contact(*ours)
                assert touches == pair.theirs.env.check_contact(*theirs)
                touching.append(touches)
        assert 0 < sum(touching) < len(touching)


def pairs_of(simulator: Simulator) -> list[tuple[object, object]]:
    env = simulator.env
    things = [*env.objects_dict.values(), *env.fixtures_dict.values(), env.robots[0].gripper]
    things = [thing for thing in things if thing.contact_geoms]
    return list(itertools.permutations(things, 2))


def test_closing_a_simulator_frees_its_model_at_once():
    simulator = Simulator(mini_tasks()[2].bddl, "push", None)
    simulator.step(np.zeros(7))
    model = weakref.ref(simulator.env.sim.model._model)
    assert model() is not None
    simulator.close()
    assert model() is None


Change = Callable[[Simulator, pytest.MonkeyPatch], None]


def change_controller(name: str, value: object) -> Change:
    return lambda simulator, patch: patch.setattr(simulator.env.robots[0].controller, name, value)


def use_rk4(simulator: Simulator, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(simulator.env.sim.model._model.opt, "integrator", 1)


def put_observables_back(simulator: Simulator, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(simulator.env, "_observables", simulator.env._setup_observables())


def give_own_step(simulator: Simulator, patch: pytest.MonkeyPatch) -> None:
    known = type(simulator.env)
    other = type("Other", (known,), {"_pre_action": lambda *_: None})
    patch.setattr(simulator.env, "__class__", other)


@pytest.fixture(scope="module")
def changeable() -> Iterator[Simulator]:
    """A simulator whose changes are undone after each test."""
    task = mini_tasks()[2]
    simulator = Simulator(task.bddl, task.instruction, None)
    yield simulator
    simulator.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_controller("impedance_mode", "variable"), "impedance_mode=variable"),
        (change_controller("use_delta", False), "use_delta=False"),
        (change_controller("interpolator_pos", "linear"), "interpolator_pos=linear"),
        (use_rk4, "RK4"),
        (put_observables_back, "observables"),
        (give_own_step, r"Other\._pre_action"),
    ],
)
def test_what_is_not_known_to_be_exact_is_refused(change, named, changeable):
    from duqsweep.envs.control_step import ControlStep

    ControlStep(changeable.env)
    with pytest.MonkeyPatch.context() as patch:
        change(changeable, patch)
        with pytest.raises(InfrastructureError, match=named):
            ControlStep(changeable.env)
    ControlStep(changeable.env)


def test_a_reset_that_remembers_takes_one_substep(changeable: Simulator):
    state = mini_tasks()[2].init_states[3]
    changeable.reset(state, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changeable._control_step, "_begin", lambda action: pytest.fail("settles"))
        changeable.reset(state.copy(), 5)
        for other in ({"settle_steps": 4}, {"settle_steps": 5, "as_libero": True}):
            with pytest.raises(pytest.fail.Exception, match="settles"):
                changeable.reset(state, **other)
    assert len(changeable._settled) == 1
