"""A checkpoint that cannot be loaded, and the command line as a user types it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, Command

from duqsweep.checkpoint.locate import CONFIG_JSON, SHIPPED, WEIGHTS


@pytest.fixture(scope="session")
def broken_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files are there, and no weights in them: found out by the first trial, in no time."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copy(SHIPPED / CONFIG_JSON, folder)
    (folder / WEIGHTS).write_bytes(b"nothing")
    return folder


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """`python -m duqsweep WORDS` in an empty folder."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "duqsweep", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run
