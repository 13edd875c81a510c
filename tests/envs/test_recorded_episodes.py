"""Recorded actions solve tasks of the official suites, through the states of LIBERO's own code.

`recorded/record_episodes.py` made the recordings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exhaustive import EXHAUSTIVE
from numpy.typing import NDArray
from official import official_suite

from duqsweep.envs.libero import LiberoEnvironment, open_environment
from duqsweep.envs.setup import quiet
from duqsweep.envs.suite_tasks import official_tasks
from duqsweep.result import EpisodeRecord
from duqsweep.seams import Observation
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker.episode import run_episode

RECORDINGS = sorted((Path(__file__).parent / "recorded").glob("*.npy"))
TRACED = 25  # steps
OFTEN = ("libero_goal", "libero_10")  # the suites of which every test plays the recording
SAME = 3  # steps: another processor's last digits may move the moment of success


class Replay:
    """A policy that gives recorded actions, and then idles."""

    horizon = 10
    action_dim = 7

    def __init__(self, actions: NDArray[np.float64], replan_steps: int) -> None:
        idle = np.tile([0, 0, 0, 0, 0, 0, -1.0], (self.horizon, 1))
        self._actions = np.concatenate([actions, idle])
        self._replan_steps, self._call = replan_steps, 0

    def act(self, observation: Observation, noise: NDArray[np.float32]) -> NDArray[np.float64]:
        start = min(self._call * self._replan_steps, len(self._actions) - self.horizon)
        self._call += 1
        return self._actions[start : start + self.horizon]


class Played:
    """One suite, one recording, played as often as one likes."""

    def __init__(self, path: Path, assets: Path) -> None:
        suite, task, state = path.stem.split("-")
        self.actions = np.load(path).astype(np.float64)
        self.suite: SuiteSpec = official_suite(suite, assets)
        self.entry = LedgerEntry(0, suite, int(task), int(state), self.suite.seed)
        self.environment = open_environment(self.suite)

    def play(self, actions: NDArray[np.float64], max_steps: int) -> EpisodeRecord:
        """An episode as a worker plays it, but for pictures between the calls."""
        policy = Replay(actions, self.suite.replan_steps)
        suite = replace(self.suite, max_steps=max_steps)
        return run_episode(Blind(self.environment), policy, self.entry, suite)

    def trace(self, steps: int) -> NDArray[np.float64]:
        """The simulator's state after each of the first steps."""
        self.environment.reset(self.entry)
        states = []
        for action in self.actions[:steps]:
            self.environment.step(action)
            assert isinstance(self.environment, LiberoEnvironment)
            states.append(self.environment._current.state())
        return np.array(states)


class Blind:
    """An environment that draws pictures at the start only: the replay does not look."""

    def __init__(self, environment: LiberoEnvironment) -> None:
        self._environment = environment
        self.reset, self.step = environment.reset, environment.step

    def observe(self) -> Observation:
        return self._environment._current.observe_robot()


@pytest.fixture(scope="module", params=RECORDINGS, ids=lambda path: path.stem)
def played(request: pytest.FixtureRequest, plain_official_assets: Path) -> Iterator[Played]:
    recording = Played(request.param, plain_official_assets)
    yield recording
    recording.environment.close()


def skip_unless_often(played: Played) -> None:
    if not EXHAUSTIVE and played.suite.name not in OFTEN:
        pytest.skip("one of many like it: DUQSWEEP_EXHAUSTIVE=1")


def test_there_is_a_recording_of_each_suite():
    suites = {path.stem.split("-")[0] for path in RECORDINGS}
    assert suites == {"libero_spatial", "libero_object", "libero_goal", "libero_10"}


def test_recorded_actions_end_in_the_recorded_success(played):
    record = played.play(played.actions, played.suite.max_steps)
    assert record.error is None
    assert record.success
    assert abs(record.steps - len(played.actions)) <= SAME
    assert record.calls == -(-record.steps // played.suite.replan_steps)


def test_the_same_actions_with_an_open_hand_fail_at_the_step_limit(played):
    skip_unless_often(played)
    actions = played.actions.copy()
    actions[:, 6] = -1.0
    limit = len(actions) + 20
    record = played.play(actions, limit)
    assert record.error is None
    assert not record.success
    assert record.steps == limit


def test_liberos_own_environment_goes_through_the_same_states(played):
    """As openpi evaluates: seed, reset, put into the state, idle, act (examples/libero/main.py)."""
    skip_unless_often(played)
    from libero.libero.envs.env_wrapper import ControlEnv

    task = official_tasks(played.entry.suite, 10)[played.entry.task]
    with quiet():
        libero = ControlEnv(
            bddl_file_name=str(task.bddl), use_camera_obs=False, has_offscreen_renderer=False
        )
        libero.seed(played.entry.seed)
        libero.reset()
    libero.set_init_state(task.init_states[played.entry.init_state])
    for _ in range(played.suite.settle_steps):
        libero.step([0.0] * 6 + [-1.0])
    theirs = []
    for action in played.actions[:TRACED]:
        libero.step(action.tolist())
        theirs.append(libero.get_sim_state())
    libero.close()
    assert np.array_equal(played.trace(TRACED), np.array(theirs))
