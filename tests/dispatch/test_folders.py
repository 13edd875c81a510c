"""Folders with characters that shells, SLURM and submitit read as something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends

from duqsweep.control.dispatch.dispatcher import Assignment
from duqsweep.control.dispatch.launch import log_tail
from duqsweep.errors import ConfigError

FOLDERS = ["with space", "it's", 'say "x"', "a&b;c$(d)", "käse"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_sweep_may_lie_in_any_folder(launcher: str, name: str, tmp_path: Path) -> None:
    lab = Lab(launcher, tmp_path / name / "sweep")
    lab.trial(0)
    dispatcher = lab.open()
    try:
        dispatcher.submit(Assignment(0, 2))
        (ended,) = wait_for_ends(dispatcher, 1, 20.0)
        assert ended.failure is None
        logs = [log_tail(box) for box in mailboxes(lab)]
        assert all("trial 0 up to episode 2" in log for log in logs)
    finally:
        dispatcher.close(end_jobs=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_percent_sign_is_refused_where_it_would_become_a_jobs_number(
    launcher: str, tmp_path: Path
) -> None:
    lab = Lab(launcher, tmp_path / "job %j" / "sweep")
    if launcher == "inline":
        lab.open()
        return
    with pytest.raises(ConfigError, match=r"dir must not hold %.*job %j/sweep"):
        lab.open()
