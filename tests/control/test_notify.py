"""`--notify CMD`: told when a sweep has ended, and how."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from stub_worker import StubDispatcher, make_light

from duqsweep import cli, exit_codes
from duqsweep.control.study.controller_lock import LOCK
from duqsweep.verbs import notify
from duqsweep.verbs.notify import Notice


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


def writing(told: Path) -> str:
    names = ("NAME", "STATE", "EXIT_CODE", "DIR")
    return f"echo {' '.join(f'$DUQSWEEP_{name}' for name in names)} >> {shlex.quote(str(told))}"


def begin(folder: Path, *more: str) -> int:
    words = ["+sweep=smoke", "launcher=inline", "tracking=none", f"dir={folder}"]
    return cli.main([*words, *more])


def test_a_sweep_that_ended_is_told_when_its_folder_is_free(
    told: Path, tmp_path: Path, monkeypatch
) -> None:
    make_light(monkeypatch)
    folder = tmp_path / "s"
    free = f"flock --nonblock {shlex.quote(str(folder / LOCK))} true && "
    assert begin(folder, "--notify", free + writing(told)) == exit_codes.OK
    assert (folder / LOCK).exists()
    assert told.read_text() == f"smoke finished 0 {folder}\n"


def test_one_that_is_interrupted_is_told_too(told: Path, tmp_path: Path, monkeypatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    make_light(monkeypatch)
    monkeypatch.setattr(StubDispatcher, "poll", interrupted)
    folder = tmp_path / "s"
    assert begin(folder, "--notify", writing(told)) == exit_codes.INTERRUPTED
    assert told.read_text() == f"smoke interrupted 130 {folder}\n"


def test_one_that_is_refused_was_never_begun(told: Path, tmp_path: Path) -> None:
    words = ["--notify", writing(told), "storage.url=nowhere"]
    assert begin(tmp_path / "s", *words) == exit_codes.CONFIG
    assert not told.exists()


def test_what_is_raised_is_an_error(told: Path, tmp_path: Path) -> None:
    notice = Notice(writing(told), "x", tmp_path, state=notify.ERROR)
    with pytest.raises(RuntimeError), notice:
        raise RuntimeError
    assert told.read_text() == f"x error 1 {tmp_path}\n"


@pytest.mark.parametrize(
    ("command", "said"), [("exit 3", "ended with code 3"), ("sleep 9", "did not end within 0 s")]
)
def test_a_command_that_fails_is_one_line(command, said, tmp_path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(notify, "PATIENCE_S", 0.2)
    with Notice(command, "x", tmp_path, state="finished"):
        pass
    assert capfd.readouterr().err == f"duqsweep: --notify {command!r} {said}\n"


def test_an_empty_command_is_refused(tmp_path: Path, capsys) -> None:
    assert begin(tmp_path / "s", "--notify", " ") == exit_codes.CONFIG
    assert "--notify must be a shell command, got ' '" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
