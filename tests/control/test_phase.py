"""What a trial does before its first episode is there for whoever looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from duqsweep import files
from duqsweep.assignment import Assignment
from duqsweep.control.dispatch.jobfile import note_submission
from duqsweep.control.trials.phase import read_phase
from duqsweep.worker.phases import phase, shown_in


@pytest.fixture
def trial_dir(tmp_path: Path) -> Path:
    folder = files.trial_dir(tmp_path, 0)
    folder.mkdir(parents=True)
    return folder


def submit(trial_dir: Path) -> None:
    note_submission(trial_dir.parent.parent, Assignment(0, 3), "local", None, 0, None)


def test_a_phase_is_seen_while_it_runs(trial_dir: Path) -> None:
    submit(trial_dir)
    assert read_phase(trial_dir) is None
    with shown_in(trial_dir):
        with phase("load"):
            assert read_phase(trial_dir) == "load"
        with phase("compile"):
            assert read_phase(trial_dir) == "compile"
    assert read_phase(trial_dir) is None
    with phase("load"):  # nobody is to see this one
        assert read_phase(trial_dir) is None


def test_a_phase_that_a_killed_worker_left_is_not_the_next_jobs(trial_dir: Path) -> None:
    submit(trial_dir)
    left = {"phase": "compile", "since_s": 1.0}
    files.write_json(trial_dir / files.PHASE_JSON, left)
    assert read_phase(trial_dir) is None


@pytest.mark.parametrize("content", ["", "[1]", "{}"])
def test_a_damaged_phase_is_none(content: str, trial_dir: Path) -> None:
    submit(trial_dir)
    (trial_dir / files.PHASE_JSON).write_text(content)
    assert read_phase(trial_dir) is None
