"""Files that a killed writer left behind never disturb the next writer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duqsweep import files
from duqsweep.errors import EvaluationError


def test_a_whole_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"a\.json is not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert files.read_lines(tmp_path / "none.jsonl") == []


@given(cut=st.integers(0, 40))
def test_a_torn_last_line_is_ignored_and_cut_off(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    lines = [{"i": 0, "text": "ü"}, {"i": 1}]
    for line in lines:
        files.append_line(path, line)
    content = path.read_bytes()
    kept = content[: max(len(content) - cut, 0)]
    path.write_bytes(kept)
    whole = lines[: kept.count(b"\n")]
    assert files.read_lines(path) == whole
    files.append_line(path, {"i": 2})
    assert files.read_lines(path) == [*whole, {"i": 2}]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "front.json"
    files.write_json(path, {"old": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "sweep.yaml"
    files.write_text(path, "url: secret", private=True)
    assert path.stat().st_mode & 0o777 == 0o600
