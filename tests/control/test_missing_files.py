"""What the end of a sweep writes is written again by the next start where it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stub_worker import config_for, copied, finish, make_light, run

from duqsweep import files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.verbs.sweep import AT_THE_END

# Optuna notes in its journal which process wrote.
COMPARED = [name for name in AT_THE_END if name != files.DASHBOARD_LOG]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    make_light(monkeypatch, draws=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepConfig, Path]:
    """A configuration, and the finished folder that it left, with trials enough for importances."""
    return finish(tmp_path_factory.mktemp("sweeps") / "odd", "budget.trials=12", draws=True)


@pytest.fixture
def sweep(finished: tuple[SweepConfig, Path]) -> SweepConfig:
    return copied(finished)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in COMPARED}


@pytest.mark.fault(
    "front.csv, front.png, report.html, dashboard.log or importances.json missing", "written again"
)
@pytest.mark.parametrize("lost", [*([name] for name in AT_THE_END), [*AT_THE_END]])
def test_a_finished_sweep_that_lost_files_writes_them_again(
    lost: list[str], sweep: SweepConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(sweep.directory)
    assert json.loads(before[files.FRONT_JSON])["importances"]
    for name in lost:
        (sweep.directory / name).unlink()
    assert run(sweep).played == []
    said = capsys.readouterr().out
    names = ", ".join(lost)
    assert f"nothing was left to do, what was missing is written again: {names}\n" in said
    assert contents(sweep.directory) == before
    assert (sweep.directory / files.DASHBOARD_LOG).stat().st_size
    assert run(sweep).played == []
    assert "nothing was left to do, nothing was changed\n" in capsys.readouterr().out


def test_a_whole_sweep_is_not_drawn_again(
    sweep: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*args: object) -> None:
        pytest.fail("nothing was missing")

    monkeypatch.setattr("duqsweep.control.report.report.write_report", drawn)
    assert run(sweep).played == []


def test_too_few_trials_have_no_importances_to_miss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(tmp_path / "few")
    run(config)
    assert not (config.directory / files.IMPORTANCES_JSON).exists()
    capsys.readouterr()
    run(config)
    assert "nothing was left to do, nothing was changed\n" in capsys.readouterr().out
