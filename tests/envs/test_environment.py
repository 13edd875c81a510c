"""What `LiberoEnvironment` promises beyond the contract (test_environment_contract)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from duqsweep.codec import encode
from duqsweep.envs.libero import LiberoEnvironment, open_environment
from duqsweep.errors import InfrastructureError
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


def test_pictures_are_upright(environment):
    view = environment.reset(entry(2)).images["agentview"].astype(int)
    assert view[:16].mean() < view[16:].mean()  # the dark robot is above the table


def test_an_episode_is_the_same_in_another_process(environment, suite):
    here = rollout(environment, 4)
    elsewhere = subprocess.run(
        [sys.executable, "-c", ROLLOUT, json.dumps(encode(suite)), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout.strip() == here  # and LIBERO's chatter is not on stdout


def test_a_robot_without_its_hidden_meshes_moves_and_looks_the_same(environment, suite):
    from duqsweep.envs.mini import problem  # registered when `environment` was opened

    coarse = [rollout(environment, task) for task in (0, 5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problem, "without_fine_meshes", lambda xml: xml)
        whole = open_environment(suite)
        assert [rollout(whole, task) for task in (0, 5)] == coarse
    few, many = (one._current.env.sim.model._model.nmeshface for one in (environment, whole))
    assert few < 0.1 * many
    whole.close()


def test_simulators_kept_are_bounded_and_closing_forgets_none(suite):
    bounded = open_environment(suite)
    bounded._kept = 1
    for task in (2, 3, 2):
        bounded.reset(entry(task))
        assert [built for built, _ in bounded._simulators] == [task]
    bounded.close()
    assert not bounded._simulators


def test_a_crash_of_the_simulator_is_the_machines_fault(environment, monkeypatch):
    environment.reset(entry(2))

    def crash(**_: object) -> None:
        raise RuntimeError("context lost")

    monkeypatch.setattr(environment._current.env.sim, "render", crash)
    with pytest.raises(InfrastructureError, match="context lost"):
        environment.observe()
