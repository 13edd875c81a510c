"""Folders that another user prepared are not used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from duqsweep.private import cache_folder, close_to_others, is_private

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
OTHER = 12345


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return folder


def check_it_is_ours_alone(folder: Path) -> None:
    status = folder.lstat()
    assert stat.S_ISDIR(status.st_mode)
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o700)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_the_folder_is_in_the_cache_whatever_the_umask(cache: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        folder = cache_folder("libero-1")
    finally:
        os.umask(old)
    assert folder == cache / "duqsweep" / "libero-1"
    check_it_is_ours_alone(folder)
    assert cache_folder("libero-1") == folder


def test_without_the_variable_the_cache_is_in_the_home(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(cache))
    assert cache_folder("x") == cache / ".cache" / "duqsweep" / "x"


def test_a_link_that_someone_laid_is_not_followed(cache: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "config.yaml").write_text("mine")
    (cache / "duqsweep").mkdir()
    (cache / "duqsweep" / "libero-1").symlink_to(victim)
    folder = cache_folder("libero-1")
    check_it_is_ours_alone(folder)
    assert folder.parent == tmp_path / "tmp"
    assert (victim / "config.yaml").read_text() == "mine"


@root_only
def test_a_folder_that_another_user_made_first_is_not_used(cache: Path, tmp_path: Path) -> None:
    planted = cache / "duqsweep" / "libero-1"
    planted.mkdir(parents=True)
    (planted / "config.yaml").write_text("init_states: /theirs")
    os.chown(planted, OTHER, OTHER)
    folder = cache_folder("libero-1")
    check_it_is_ours_alone(folder)
    assert folder.parent == tmp_path / "tmp"


@root_only
def test_a_folder_below_another_users_is_not_used(cache: Path, tmp_path: Path) -> None:
    os.chown(cache, OTHER, OTHER)
    assert cache_folder("libero-1").parent == tmp_path / "tmp"


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_is_not_used(cache: Path, tmp_path: Path, mode: int) -> None:
    (cache / "duqsweep" / "libero-1").mkdir(parents=True)
    (cache / "duqsweep" / "libero-1").chmod(mode)
    assert cache_folder("libero-1").parent == tmp_path / "tmp"


@pytest.mark.parametrize(("mode", "is_safe"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_a_folder_above_may_be_open_only_as_tmp_is(cache: Path, mode: int, is_safe: bool) -> None:
    folder = cache_folder("libero-1")
    cache.chmod(mode)
    assert is_private(folder) == is_safe


def test_a_home_that_cannot_be_written_is_no_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    check_it_is_ours_alone(cache_folder("libero-1"))


@pytest.mark.parametrize(("mode", "becomes"), [(0o777, 0o700), (0o775, 0o700), (0o755, 0o755)])
def test_others_lose_the_right_to_write_a_sweeps_folder(
    tmp_path: Path, mode: int, becomes: int
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    folder.chmod(mode)
    close_to_others(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == becomes
