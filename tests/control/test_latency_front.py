"""A sweep without episodes: its front, tables, picture, exported choices and MLflow runs."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_sweep import REFERENCE_MS, make_result, make_trial, make_vitals
from synthetic_sweep import write_trial as write

from duqsweep import files
from duqsweep.control.export import pick
from duqsweep.control.front.content import SLACK, compute_front
from duqsweep.control.front.history import FrontHistory
from duqsweep.control.front.measures import CALL_MS
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.records import Front
from duqsweep.control.report.page import report_page
from duqsweep.control.report.picture import draw
from duqsweep.control.report.report import front_csv, print_front
from duqsweep.control.tracking.runs import description, sweep_record
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.control.view.headline import headline
from duqsweep.control.view.live import EventLines
from duqsweep.control.view.livetable import LiveTable
from duqsweep.control.view.progress import Plan
from duqsweep.errors import ConfigError
from duqsweep.result import TrialResult

OBJECTIVES = (
    Objective("call_ms", "minimize"),
    Objective("action_error", "minimize"),
    Objective("weights_mb", "minimize"),
)
# Trial → bits, steps, kernel, speed-up; the third is beaten by the second in all three objectives.
TRIALS = {
    0: (16, 10, "fake", 1.0),
    1: (4, 10, "w4a8", 6.0),
    2: (4, 10, "fake", 2.0),
    3: (8, 10, "int8", 4.0),
}


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "latency"
    for number, (bits, steps, kernel, speedup) in TRIALS.items():
        trial = make_trial(number, bits, steps, "reference" if bits == 16 else None, kernel=kernel)
        trial.params["quant.kernel"] = kernel
        vitals = make_vitals(trial, speedup)
        write(folder, trial, vitals, [], make_result([]))
    crash = TrialResult("failed", "no GPU", 0, 0, 0, None, "EvaluationError", "Traceback")
    write(folder, make_trial(4, kernel="int8"), result=crash)
    ensure_reference(folder, read_trials(folder))
    return folder


@pytest.fixture
def front(sweep_dir: Path) -> Front:
    return compute_front(sweep_dir, OBJECTIVES)


def test_the_front_is_made_of_calls_errors_and_weights(front: Front) -> None:
    assert {point.trial for point in front.members} == {0, 1, 3}
    content = front.to_json()
    point = content["points"][1]
    assert point["call_ms"] == pytest.approx(REFERENCE_MS / 6)
    assert (point["success_rate"], point["p_front"], point["episodes"]) == (None, None, 0)
    assert content["points"][4]["call_ms"] is None
    assert content["hypervolume"] > 0


def test_a_call_counts_as_measured_on_the_gpu_of_the_reference_alone(tmp_path: Path) -> None:
    here = {"node": "a", "device": "cuda", "gpu": "H200"}
    for number, hardware in enumerate((here, here, {**here, "node": "b"})):
        trial = make_trial(number)
        vitals = replace(make_vitals(trial, 2.0, noise=0.1 * number), hardware=hardware)
        write(tmp_path, trial, vitals, [], make_result([]))
    ensure_reference(tmp_path, read_trials(tmp_path))
    calls = [point.value(CALL_MS) for point in compute_front(tmp_path, OBJECTIVES).points]
    assert calls == pytest.approx([REFERENCE_MS / 2, 1.1 * REFERENCE_MS / 2, REFERENCE_MS / 2])


def test_hypervolume_of_calls_is_measured_from_the_reference(tmp_path: Path) -> None:
    trial = make_trial(0)
    vitals = make_vitals(trial, 2.0)
    write(tmp_path, trial, vitals, [], make_result([]))
    ensure_reference(tmp_path, read_trials(tmp_path))
    volume = compute_front(tmp_path, OBJECTIVES[:1]).hypervolume
    assert volume == pytest.approx(REFERENCE_MS * (SLACK - 0.5))


def test_tables_show_calls_and_no_success(front: Front) -> None:
    stream = io.StringIO()
    print_front(front, Console(file=stream, width=200))
    shown = stream.getvalue()
    assert "call" in shown
    assert "action_error" in shown
    assert "weights_mb" in shown
    assert "6.83 ms" in shown
    assert "w4a8" in shown
    assert "no episodes" in shown
    assert "success" not in shown
    assert "kernel int8: products of 8-bit integers" in shown
    assert headline(front).startswith("Trial 1 is the fastest: 6.83 ms per call, 6.00× ")


def test_the_page_and_the_picture_need_no_success(sweep_dir: Path, front: Front) -> None:
    drawn = draw(front)
    page = report_page(front, read_trials(sweep_dir), drawn.svg)
    assert ">call<" in page
    assert "success" not in page.partition("<script>")[0].lower()
    assert page.count(">kernel<") == 2  # tables; a searched kernel has no second column
    assert drawn.png.startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO(front_csv(front))))
    assert rows[1]["kernel"] == "w4a8"
    assert float(rows[1]["call_ms"]) == pytest.approx(REFERENCE_MS / 6)


@pytest.mark.parametrize(
    ("rule", "trial"),
    [("knee", 3), ("fastest@action_error<=0.05", 3), ("fastest@action_error<=1", 1)],
)
def test_a_rule_picks_by_error_where_there_is_no_success(
    front: Front, rule: str, trial: int
) -> None:
    assert pick(front, rule) == trial


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("fastest@success>=0.9", "played no episodes: pick knee or fastest@action_error<=X"),
        (
            "best",
            "knee, fastest@success>=X, fastest@success.CATEGORY>=X or fastest@action_error<=X",
        ),
    ],
)
def test_a_rule_that_cannot_be_met_says_what_can(front: Front, rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pick(front, rule)


def test_mlflow_gets_calls_and_no_best_success(sweep_dir: Path, front: Front) -> None:
    views = read_trials(sweep_dir)
    assert {step.best_success for step in FrontHistory().steps(front, views)} == {None}
    record = sweep_record("latency", views, front, True, FrontHistory())
    assert {name for name, *_ in record.metrics} == {"hypervolume"}
    assert "| 1 | 6.83 ms |" in description(front)


def test_watchers_show_no_episodes(sweep_dir: Path, front: Front) -> None:
    views = read_trials(sweep_dir)
    result, vitals = views[1].result, views[1].vitals
    assert result is not None
    assert vitals is not None
    plan = Plan("latency", 5, 0)
    stream = io.StringIO()
    lines = EventLines(plan, stream)
    lines.ended(1, result)
    lines.front(front)
    assert "trial 1 complete: benchmarked, no episode asked for [1/5]" in stream.getvalue()
    assert "front: 1 (6.83 ms, error 0.075)" in stream.getvalue()
    table = LiveTable(plan, Console(file=io.StringIO(), width=120))
    table.started(views[2].trial)
    table.vitals(2, vitals)
    table.ended(1, result)
    table.front(front)
    with table.console.capture() as capture:
        table.console.print(table.view())
    assert "episode" not in capture.get()
    assert "left" in capture.get()


def test_a_sweeps_folder_may_hold_no_episode_file(sweep_dir: Path) -> None:
    assert not list(sweep_dir.glob(f"*/*/{files.EPISODES_JSONL}"))
