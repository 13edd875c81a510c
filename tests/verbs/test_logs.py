"""`logs`: the log of one trial, also while it grows."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from synthetic_folder import write_walk

from duqsweep import cli, exit_codes, files
from duqsweep.control.config.sweep_config import compose
from duqsweep.verbs import logs


@pytest.fixture(scope="module")
def configuration() -> str:
    return compose(["+sweep=smoke"]).yaml


@pytest.fixture
def folder(tmp_path: Path, configuration: str) -> Path:
    write_walk(tmp_path / "s", 0, None, 2)
    (tmp_path / "s" / files.SWEEP_YAML).write_text(configuration)
    return tmp_path / "s"


def trial_dir(folder: Path) -> Path:
    return files.trial_dir(folder, 0)


def test_the_log_is_printed_as_it_is(folder: Path, capsys) -> None:
    (trial_dir(folder) / files.LOG_TXT).write_bytes("one\nzwölf\n\xff".encode() + b"\xff\n")
    assert cli.main(["logs", str(folder), "--trial", "0"]) == exit_codes.OK
    assert capsys.readouterr().out == "one\nzwölf\nÿ�\n"


def test_what_is_added_follows_until_the_trial_has_ended(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(logs, "POLL_S", 0.02)
    log = trial_dir(folder) / files.LOG_TXT

    def work() -> None:
        for line in ("first", "second"):
            time.sleep(0.05)
            with log.open("a") as file:
                file.write(f"{line}\n")
        files.write_json(trial_dir(folder) / files.RESULT_JSON, {})
        with log.open("a") as file:
            file.write("complete\n")

    worker = threading.Thread(target=work)
    worker.start()
    assert cli.main(["logs", str(folder), "--trial", "0", "-f"]) == exit_codes.OK
    worker.join()
    assert capsys.readouterr().out == "first\nsecond\ncomplete\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trial", "7"], "smoke has no trial 7; it has [0]"),
        (["--trial", "0"], "trial 0 of smoke has no log yet: -f waits for it"),
    ],
)
def test_what_is_not_there_is_one_line(words, said, folder: Path, capsys) -> None:
    assert cli.main(["logs", str(folder), *words]) == exit_codes.CONFIG
    assert capsys.readouterr().err == f"duqsweep: {said}\n"
