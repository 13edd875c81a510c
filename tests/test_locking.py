"""A lock is held by one process at a time, whatever kind of lock its file system knows."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
from pathlib import Path

import pytest

from duqsweep.control.study.controller_lock import controller_lock
from duqsweep.errors import ConfigError, DuqsweepError
from duqsweep.locking import try_lock


def lacks(code: int):
    def refuse(descriptor: int, flags: int) -> None:
        raise OSError(code, "No locks available")

    return refuse


@pytest.fixture(params=["flock", "lockf"])
def only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows only this kind."""
    if request.param == "lockf":
        monkeypatch.setattr(fcntl, "flock", lacks(errno.ENOLCK))


def in_another_process(path: Path) -> bool:
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        return pool.apply(_try_once, (path,))


def _try_once(path: Path) -> bool:
    with path.open("a+") as file:
        return try_lock(file.fileno(), path)


def test_one_process_holds_it_at_a_time(only, tmp_path):
    path = tmp_path / "lock"
    with path.open("a+") as file:
        assert try_lock(file.fileno(), path)
        assert not in_another_process(path)
    assert in_another_process(path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_in_one_sentence(code, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lacks(code))
    monkeypatch.setattr(fcntl, "lockf", lacks(code))
    with pytest.raises(DuqsweepError, match=r"has no locks.*dir=FOLDER"), controller_lock(tmp_path):
        pytest.fail("nobody may write")


def test_another_fault_of_the_disk_is_not_taken_for_a_missing_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lacks(errno.EIO))
    with (tmp_path / "lock").open("a+") as file, pytest.raises(OSError, match="No locks"):
        try_lock(file.fileno(), tmp_path)


def test_the_holder_of_a_folder_is_named(only, tmp_path):
    def second(folder: Path) -> str:
        try:
            with controller_lock(folder):
                return ""
        except ConfigError as error:
            return str(error)

    with controller_lock(tmp_path):
        read, write = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=lambda: write.send(second(tmp_path))
        )
        process.start()
        assert read.poll(20.0)
        assert "in use by another controller: process" in read.recv()
        process.join()
