"""A measure is declared once: one more entry of the table reaches every place that shows trials."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_sweep import write_sweep

from duqsweep import files
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.measures import MEASURES, Measure, measures_of
from duqsweep.control.front.objectives import Objective, objective_values
from duqsweep.control.front.records import Front, read_front
from duqsweep.control.report.report import print_front, write_report
from duqsweep.control.tracking.runs import description, trial_record
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.trials.reference import sweep_reference
from duqsweep.errors import ConfigError

WARMTH = Measure(
    "warmth_j",
    unit="J",
    direction="minimize",
    label="warmth of a call",
    column="warmth",
    read=lambda view, _reference: None if view.vitals is None else 1000.0 + view.number,
    text=lambda value: "cold" if value is None else f"{value:,.0f} J",
    explanation="how warm a call makes the room",
)


@pytest.fixture
def warmth(monkeypatch: pytest.MonkeyPatch) -> Objective:
    """A measure that the package does not have: one entry of the table, and nothing else."""
    monkeypatch.setitem(MEASURES, WARMTH.name, WARMTH)
    (objective,) = compose(["+sweep=smoke", "objectives=[{name: warmth_j}]"]).objectives
    return objective


@pytest.fixture
def front(warmth: Objective, tmp_path: Path) -> Front:
    folder = write_sweep(tmp_path / "dit_speed", trials=12, episodes=6, running=False)
    views = read_trials(folder)
    front = compute_front(folder, [warmth, Objective("success_rate", "maximize")], views)
    write_report(folder, front, views)
    return front


def test_a_new_measure_can_be_traded(warmth: Objective, front: Front, tmp_path: Path) -> None:
    assert warmth == Objective("warmth_j", "minimize")
    views = read_trials(tmp_path / "dit_speed")
    reference = sweep_reference(tmp_path / "dit_speed")
    assert objective_values(views[3], [warmth], reference) == (1003.0,)
    assert front.members
    with pytest.raises(ConfigError, match="direction of objective warmth_j is minimize"):
        compose(["+sweep=smoke", "objectives=[{name: warmth_j, direction: maximize}]"])
    with pytest.raises(ConfigError, match=r"objectives are: success_rate, .*warmth_j"):
        compose(["+sweep=smoke", "objectives=[{name: wamth}]"])


def test_a_new_measure_is_in_every_file(front: Front, tmp_path: Path) -> None:
    folder = tmp_path / "dit_speed"
    point = files.read_json(folder / files.FRONT_JSON)["points"][3]
    assert point["warmth_j"] == 1003.0
    assert read_front(folder) == front
    rows = list(csv.DictReader(io.StringIO((folder / files.FRONT_CSV).read_text())))
    assert rows[3]["warmth_j"] == "1003.0"
    page = (folder / files.REPORT_HTML).read_text()
    assert ">warmth</th>" in page
    assert "1,003 J</td>" in page
    assert "<dt>warmth</dt><dd>how warm a call makes the room</dd>" in page
    assert "warmth of a call [J]" in page  # an axis of the picture


def test_a_new_measure_is_in_the_terminal_and_in_mlflow(front: Front, tmp_path: Path) -> None:
    stream = io.StringIO()
    print_front(front, Console(file=stream, width=200))
    best = front.members[0].trial
    assert "warmth" in stream.getvalue()
    assert f"{1000 + best:,} J" in stream.getvalue()
    assert "warmth_j: how warm a call makes the room" in stream.getvalue()
    folder = tmp_path / "dit_speed"
    view = read_trials(folder)[best]
    record = trial_record(view, front.points[best], sweep_reference(folder))
    assert ("warmth_j", 1000.0 + best) in {metric[:2] for metric in record.metrics}
    assert "| warmth |" in description(front)


def test_categories_have_the_success_rate_of_the_same_table() -> None:
    suite = compose(["+sweep=dit_speed", "suite=libero_pro_goal"]).base.suite
    by_category = measures_of(suite)["success_rate.object"]
    overall = MEASURES["success_rate"]
    assert (by_category.direction, by_category.text) == (overall.direction, overall.text)
    assert (by_category.label, by_category.column) == ("success rate, category object", "object")


@pytest.mark.parametrize("name", ["success_rate", "steps_to_success"])
def test_what_needs_episodes_is_no_objective_without_them(name: str) -> None:
    words = ["+sweep=smoke", f"objectives=[{{name: {name}}}]", "budget.episodes_per_trial=0"]
    with pytest.raises(ConfigError, match=f"the objective {name} needs at least 1"):
        compose(words)


def test_a_trials_mlflow_run_has_the_values_of_the_front(tmp_path: Path) -> None:
    """Also on a slower node, whose own figures have names of their own."""
    folder = write_sweep(tmp_path / "dit_speed", trials=12, episodes=6)
    front = compute_front(folder, compose(["+sweep=smoke"]).objectives)
    for view, point in zip(read_trials(folder), front.points, strict=False):
        record = trial_record(view, point, sweep_reference(folder))
        metrics = {name: value for name, value, _at, _step in record.metrics}
        for name, value in point.measures.items():
            assert metrics.get(name) == value
        if view.vitals is not None:
            assert metrics["node_call_ms"] == view.vitals.call_ms.p50
