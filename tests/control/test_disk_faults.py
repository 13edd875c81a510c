"""A full disk, a used-up quota and an absent file system are waited out by the controller."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import optuna
import pytest
from stub_worker import config_for, make_light, run

from duqsweep import files
from duqsweep.control.study.storage import open_storage

AT = {  # calls of fsync that fail
    15: errno.ENOSPC,
    16: errno.ENOSPC,
    28: errno.EDQUOT,
    40: errno.ESTALE,
    52: errno.EIO,
}


class FailingDisk:
    """Stands in for `os.fsync`."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        if self.calls in AT:
            raise OSError(AT[self.calls], os.strerror(AT[self.calls]))


@pytest.mark.fault("disk full, quota used up, ESTALE, EIO", "waits, says so once, leaves no `.tmp`")
def test_the_sweep_waits_says_so_and_ends_as_if_nothing_had_been(tmp_path, monkeypatch, capsys):
    make_light(monkeypatch)
    whole, broken = tmp_path / "whole" / "odd", tmp_path / "broken" / "odd"
    run(config_for(whole))
    capsys.readouterr()
    monkeypatch.setattr("os.fsync", FailingDisk())
    monkeypatch.setattr(files, "PAUSE_S", 0.0)
    run(config_for(broken))
    assert (broken / files.FRONT_JSON).read_bytes() == (whole / files.FRONT_JSON).read_bytes()
    assert list(tmp_path.rglob("*.tmp")) == []
    said = [line for line in capsys.readouterr().out.splitlines() if "until it works" in line]
    assert len(said) == 4  # one line for each wait
    assert "No space left on device: " in said[0]
    assert str(broken) in said[0]


def test_a_verb_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(tmp_path / "file.json", {})
    assert list(tmp_path.iterdir()) == []


def test_the_study_waits_for_the_disk_when_a_trial_begins_and_ends_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FailingDisk()
    monkeypatch.setattr("os.fsync", disk)
    storage = open_storage(tmp_path, None)
    study = optuna.create_study(storage=storage, study_name="s")
    before = disk.calls
    trial = study.ask()
    trial.suggest_int("n", 1, 9)
    for key in ("outcome", "reason", "episodes"):
        trial.set_user_attr(key, key)
    study.tell(trial, 0.5)
    assert disk.calls - before == 2
    again = optuna.load_study(storage=open_storage(tmp_path, None), study_name="s")
    assert again.trials == study.trials
    assert again.best_trial.user_attrs["reason"] == "reason"


def test_what_the_controller_has_added_to_the_study_is_not_read_again(tmp_path: Path) -> None:
    storage = open_storage(tmp_path, None)
    study = optuna.create_study(storage=storage, study_name="s")
    journal = tmp_path / files.STUDY_LOG
    for _ in range(3):
        study.tell(study.ask(), 0.5)
        journal.write_bytes(b"not looked at\n")
    assert [trial.value for trial in study.trials] == [0.5] * 3
