"""Every place that shows a front names the simulator, and warns of rates not to be compared."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_sweep import OBJECTIVES, make_episodes, make_result, make_trial, make_vitals
from synthetic_sweep import write_trial as write

from duqsweep.control.front.content import compute_front
from duqsweep.control.front.history import FrontHistory
from duqsweep.control.front.records import Front
from duqsweep.control.report.report import print_front, write_report
from duqsweep.control.tracking.runs import sweep_record
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.control.view.simulation import simulator_line, warnings
from duqsweep.result import SimulatorInfo

ORIGINAL = SimulatorInfo(
    "3.3.7", "1.4.0", "0.1.4", assets="original", assets_id="0f" * 8, asset_files=31
)
STAND_INS = replace(ORIGINAL, assets="stand-ins", stand_ins=22)
WARNING = "not LIBERO's pictures: 22 of the 31 asset files of libero_goal are stand-ins"


def write_sweep(folder: Path, simulator: SimulatorInfo | None, *renderers: str) -> Front:
    """A trial per renderer, all of libero_goal as openpi evaluates it."""
    for number, renderer in enumerate(renderers):
        trial = make_trial(number, name="reference" if number == 0 else None)
        suite = replace(trial.spec.suite, name="libero_goal", protocol="openpi")
        trial = replace(trial, spec=replace(trial.spec, suite=suite))
        vitals = replace(make_vitals(trial, 1.0), simulator=simulator, renderer=renderer)
        episodes = make_episodes(number, 12, 0.9)
        write(folder, trial, vitals, episodes, make_result(episodes))
    ensure_reference(folder, read_trials(folder))
    return compute_front(folder, OBJECTIVES)


def printed(front: Front) -> str:
    text = StringIO()
    print_front(front, Console(file=text, width=200))
    return text.getvalue()


def test_a_sweep_on_liberos_own_assets_says_so_and_warns_of_nothing(tmp_path: Path):
    front = write_sweep(tmp_path, ORIGINAL, "egl", "egl")
    assert front.simulator.info.assets == "original"
    assert warnings(front.simulator) == []
    line = (
        "simulator: libero_goal in MuJoCo 3.3.7 and robosuite 1.4.0, LIBERO's own assets, "
        "drawn by egl, as openpi evaluates"
    )
    assert line in printed(front)
    write_report(tmp_path, front, read_trials(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert line.replace("'", "&#x27;") in page
    assert 'class="warning"' not in page


def test_stand_ins_are_named_in_terminal_report_and_mlflow(tmp_path: Path):
    front = write_sweep(tmp_path, STAND_INS, "osmesa")
    assert WARNING in printed(front)
    views = read_trials(tmp_path)
    write_report(tmp_path, front, views)
    assert f'<p class="warning">{WARNING.replace(chr(39), "&#x27;")}' in (
        (tmp_path / "report.html").read_text()
    )
    tags = sweep_record("goal", views, front, True, FrontHistory()).tags
    assert (tags["duqsweep.assets"], tags["duqsweep.mujoco"]) == ("stand-ins", "3.3.7")
    assert f"**{WARNING}" in tags["mlflow.note.content"]


def test_renderers_that_differ_between_trials_are_named(tmp_path: Path):
    front = write_sweep(tmp_path, ORIGINAL, "osmesa", "egl")
    (warning,) = warnings(front.simulator)
    assert "different renderers (egl, osmesa)" in warning


@pytest.mark.parametrize("renderers", [(), ("osmesa",)])
def test_a_sweep_without_episodes_names_no_simulator(renderers: tuple[str, ...], tmp_path: Path):
    front = write_sweep(tmp_path, None, *renderers)
    assert front.simulator is None
    assert simulator_line(None) is None
    assert "simulator:" not in printed(front)
