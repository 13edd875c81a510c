"""A policy of random weights, and one sweep of it that nobody interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import SMALL, Finished, run

from duqsweep.envs.mini.suite import TASKS
from duqsweep.policy.load import save_random


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_random(folder, [task.instruction for task in TASKS])
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Finished:
    """With local workers; only to be read."""
    cwd = tmp_path_factory.mktemp("finished")
    words = (*SMALL, f"policy.checkpoint={checkpoint}")
    return Finished(cwd / "sweeps" / "small", words, run(words, cwd))
