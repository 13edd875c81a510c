"""What an interpreter itself says when it ends, and that `python -O` changes no answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT

from duqsweep import exit_codes

LEAVES = """
import sys, tempfile, time
from pathlib import Path
from duqsweep.assignment import Assignment
from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch.dispatcher import open_dispatcher
folder = Path(sys.argv[1])
(folder / "trials" / "0000").mkdir(parents=True)
dispatcher = open_dispatcher(LauncherConfig(name="local", jobs=1), folder)
dispatcher.submit(Assignment(0, 1))
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_leaving_while_a_local_job_runs_says_nothing(tmp_path: Path) -> None:
    done = run("-c", LEAVES, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "words",
    [["--help"], ["plan", "+sweep=smok"], ["status", "nowhere"], ["plan", "budget.trials=3"]],
    ids=" ".join,
)
def test_without_asserts_every_answer_is_the_same(words: list[str]) -> None:
    usual, optimised = run("-m", "duqsweep", *words), run("-O", "-m", "duqsweep", *words)
    assert usual.returncode in (exit_codes.OK, exit_codes.CONFIG)
    answers = [(done.returncode, done.stdout, done.stderr) for done in (usual, optimised)]
    assert answers[0] == answers[1]
