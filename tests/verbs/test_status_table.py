"""`status` for people: settings, intervals and scaled times in one row per trial."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_folder import write_walk

from duqsweep import cli, exit_codes, files
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.trial_status import TrialStatus, write_status


@pytest.fixture(scope="module")
def configuration() -> str:
    return compose(["+sweep=smoke", "launcher=inline"]).yaml


@pytest.fixture
def folder(tmp_path: Path, configuration: str) -> Path:
    folder = tmp_path / "s"
    for number, (outcome, block) in enumerate([("complete", 16), ("complete", 32), (None, 64)]):
        number += 2 * (number == 2)  # as if 2 and 3 had repeated others
        write_walk(folder, number, outcome, 6 if outcome else 0)
        path = files.trial_dir(folder, number) / files.SPEC_JSON
        spec = files.read_json(path)
        spec["params"] = {"quant.block_size": block, "policy.num_steps": 4}
        files.write_json(path, spec)
    running = files.trial_dir(folder, 4)
    write_status(running, TrialStatus("running", "a job has it", 6))
    files.write_json(running / files.JOB_JSON, {"submitted_at": 1.0})
    files.write_json(running / files.PHASE_JSON, {"phase": "compile", "since_s": 2.0})
    (folder / files.SWEEP_YAML).write_text(configuration)
    return folder


def shown(folder: Path, width: int, monkeypatch, capsys) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["status", str(folder)]) == exit_codes.OK
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    return lines


def test_settings_that_differ_stand_beside_the_numbers(folder, monkeypatch, capsys) -> None:
    lines = shown(folder, 120, monkeypatch, capsys)
    rows = [line for line in lines if "block_size=" in line]
    assert len(rows) == 3
    assert "6/6, at least 61 %" in rows[0]
    assert rows[0].endswith("block_size=16")
    assert "num_steps" not in "".join(lines)  # all have the same
    assert "running (compiling)" in rows[2]
    assert "no trial 2, 3: each repeated" in "".join(lines)


def test_on_a_narrow_screen_they_stand_below(folder, monkeypatch, capsys) -> None:
    lines = shown(folder, 70, monkeypatch, capsys)
    assert [line.strip() for line in lines if "block_size=" in line] == [
        "block_size=16",
        "block_size=32",
        "block_size=64",
    ]
