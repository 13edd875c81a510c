"""A full disk, a used-up quota and an absent file system are waited out by the controller."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from stub_worker import config_for, make_light, run

from duqsweep import files

AT = {  # calls of fsync that fail
    20: errno.ENOSPC,
    21: errno.ENOSPC,
    40: errno.EDQUOT,
    60: errno.ESTALE,
    80: errno.EIO,
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
