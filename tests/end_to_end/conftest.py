"""A policy of random weights, and one sweep of it that nobody interrupted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from commands import SMALL, Finished, Here, run

from duqsweep import cli
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


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """As `commands.run`, in this process, where torch and MLflow are imported once for all."""

    def run_here(words, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        code = cli.main(list(words))
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run_here
