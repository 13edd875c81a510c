"""The environment that the worker sees: exact, bounded, and clear about who is at fault."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duqsweep.codec import encode
from duqsweep.envs.libero import LiberoEnvironment, open_environment
from duqsweep.errors import ConfigError, EvaluationError, InfrastructureError
from duqsweep.spec import LedgerEntry, SuiteSpec

STEPS = 12
ROLLOUT = """
import json, sys
sys.path.insert(0, sys.argv[2])
from test_environment import open_environment, rollout
from duqsweep.codec import decode
from duqsweep.spec import SuiteSpec
environment = open_environment(decode(SuiteSpec, json.loads(sys.argv[1])))
print(rollout(environment, 4))
"""


def entry(task: int, state: int = 3) -> LedgerEntry:
    return LedgerEntry(i=0, suite="duq_mini", task=task, init_state=state, seed=7)


def rollout(environment: LiberoEnvironment, task: int) -> str:
    """Hash of every image and pose of a short episode with fixed actions."""
    seen = environment.reset(entry(task))
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    for _ in range(STEPS):
        for image in seen.images.values():
            digest.update(image.tobytes())
        for part in (seen.eef_pos, seen.eef_quat, seen.gripper_qpos):
            digest.update(part.tobytes())
        environment.step(rng.uniform(-1, 1, 7))
        seen = environment.observe()
    return digest.hexdigest()


@pytest.fixture(scope="module")
def environment(suite: SuiteSpec) -> Iterator[LiberoEnvironment]:
    opened = open_environment(suite)
    yield opened
    opened.close()


def test_an_observation_is_two_upright_pictures_a_pose_and_the_words(environment):
    seen = environment.reset(entry(2))
    assert set(seen.images) == {"agentview", "wrist"}
    assert all(i.shape == (64, 64, 3) and i.dtype == np.uint8 for i in seen.images.values())
    assert seen.eef_pos.shape == (3,)
    assert seen.eef_quat.shape == (4,)
    assert seen.gripper_qpos.shape == (2,)
    assert np.ptp(seen.gripper_qpos) > 0.07  # settled with the gripper open
    assert seen.instruction == "push the plate onto the green zone"
    view = seen.images["agentview"].astype(int)
    assert view[:16].mean() < view[16:].mean()  # the dark robot is above the table


def test_an_episode_is_the_same_whatever_went_before_and_in_another_process(environment, suite):
    first = rollout(environment, 4)
    rollout(environment, 5)
    assert rollout(environment, 4) == first
    elsewhere = subprocess.run(
        [sys.executable, "-c", ROLLOUT, json.dumps(encode(suite)), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout.strip() == first  # and LIBERO's chatter is not on stdout


def test_simulators_kept_are_bounded_and_closing_forgets_none(suite):
    bounded = open_environment(suite)
    bounded._kept = 1
    for task in (2, 3, 2):
        bounded.reset(entry(task))
        assert [built for built, _ in bounded._simulators] == [task]
    bounded.close()
    with pytest.raises(EvaluationError, match="call reset first"):
        bounded.step(np.zeros(7))


@pytest.mark.parametrize("action", [np.full(7, np.nan), np.zeros(6)])
def test_an_impossible_action_is_the_policys_fault(environment, action):
    environment.reset(entry(2))
    with pytest.raises(EvaluationError) as raised:
        environment.step(action)
    assert not isinstance(raised.value, InfrastructureError)


def test_a_crash_of_the_simulator_is_the_machines_fault(environment, monkeypatch):
    environment.reset(entry(2))

    def crash(**_: object) -> None:
        raise RuntimeError("context lost")

    monkeypatch.setattr(environment._current.env.sim, "render", crash)
    with pytest.raises(InfrastructureError, match="context lost"):
        environment.observe()


@pytest.mark.parametrize(
    "wrong", [{"task": 6}, {"init_state": 50}, {"suite": "libero_goal"}], ids=str
)
def test_an_entry_of_another_suite_is_refused(environment, wrong):
    with pytest.raises(ConfigError):
        environment.reset(replace(entry(0), **wrong))
