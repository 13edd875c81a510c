"""A policy of random weights, and one sweep of it that nobody interrupted.

Both are made once for all processes of a test run: the sweep takes half a minute of CPU.
"""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
from commands import SMALL, Finished, Here, run
from shallow_policy import SIZES

from duqsweep import cli, files
from duqsweep.envs.mini.suite import TASKS
from duqsweep.policy.load import save_random
from duqsweep.worker.lock import exclusive
from duqsweep.worker.timing import StoppingRule, alternate

LONGEST_S = 600.0  # of the sweep, where every core is busy


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def checkpoint(common: Path) -> Path:
    folder = common / "checkpoint"
    with exclusive(common / "checkpoint.lock", LONGEST_S):
        if not folder.exists():
            save_random(folder, [task.instruction for task in TASKS], SIZES)
    return folder


@pytest.fixture(scope="session")
def finished(common: Path, checkpoint: Path) -> Finished:
    """With local workers; only to be read."""
    words = (*SMALL, f"policy.checkpoint={checkpoint}")
    told = common / "finished.json"
    with exclusive(common / "finished.lock", LONGEST_S):
        if not told.exists():
            process = run(words, common)
            files.write_json(told, [process.returncode, process.stdout, process.stderr])
    process = subprocess.CompletedProcess(words, *files.read_json(told))
    return Finished(common / "sweeps" / "small", words, process)


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


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are timed in 3 rounds and not in up to 30: how well is a matter of `test_timing.py`."""
    briefly = partial(alternate, stopping=StoppingRule(most=3))
    monkeypatch.setattr("duqsweep.worker.vitals.alternate", briefly)
