"""LIBERO's four suites: every task can be played, exactly, with just the files listed for it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from official import SUITES, official_suite

from duqsweep.envs import assets
from duqsweep.envs.asset_files import needed_files
from duqsweep.envs.libero import KEPT_OFFICIAL, LiberoEnvironment, open_environment
from duqsweep.spec import LedgerEntry

STEPS = 3


def entry(suite: str, task: int, state: int = 0, seed: int = 7) -> LedgerEntry:
    return LedgerEntry(i=0, suite=suite, task=task, init_state=state, seed=seed)


@contextmanager
def opened(suite: str, folder: Path) -> Iterator[LiberoEnvironment]:
    environment = open_environment(official_suite(suite, folder))
    assert isinstance(environment, LiberoEnvironment)
    yield environment
    environment.close()


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


@pytest.mark.parametrize("suite", SUITES)
def test_every_task_can_be_played_with_the_files_listed_for_its_suite(
    suite, official_assets, files
):
    files.names.clear()
    told, folder = [], official_assets.resolve()
    with opened(suite, folder) as environment:
        for task in range(10):
            seen = environment.reset(entry(suite, task))
            told.append(seen.instruction)
            for camera in ("agentview", "wrist"):
                assert seen.images[camera].shape == (64, 64, 3)
                assert seen.images[camera].std() > 20, f"{seen.instruction}: {camera} sees nothing"
            for _ in range(STEPS):
                assert not environment.step(np.array([0, 0, 1, 0, 0, 0, -1.0])), seen.instruction
            assert np.isfinite(environment._current.state()).all()
            risen = environment._current.observe_robot().eef_pos - seen.eef_pos
            assert risen[2] > 0.005
            files.names |= set(re.findall(r'file="([^"]+)"', model_xml(environment)))
            assert len(environment._simulators) <= KEPT_OFFICIAL
    assert sorted(told) == assets.instructions(official_suite(suite, folder))
    loaded = {Path(name).resolve() for name in files.names}
    inside = {str(p.relative_to(folder)) for p in loaded if p.is_relative_to(folder)}
    assert inside == set(needed_files(suite))


def model_xml(environment: LiberoEnvironment) -> str:
    return str(environment._current.env.model.get_xml())


def test_fixtures_stand_where_the_seed_puts_them_whatever_stood_before(official_assets):
    """A microwave, which LIBERO's own reset does not put back."""
    suite, task = "libero_10", 9

    def rollout(seed: int) -> list[bytes]:
        seen = environment.reset(entry(suite, task, 3, seed))
        rng = np.random.default_rng(0)
        trace = [image.tobytes() for image in seen.images.values()]
        for _ in range(8):
            environment.step(rng.uniform(-1, 1, 7))
            trace.append(environment._current.state().tobytes())
        return trace

    with opened(suite, official_assets) as environment:
        first, other = rollout(7), rollout(8)
        assert other != first
        environment.close()
        assert rollout(7) == first
