"""Success by category, from the episode files to everything that a sweep shows and optimizes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from composed import composed_in
from rich.console import Console
from synthetic_sweep import SUITE, make_vitals

from duqsweep import files
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig, compose
from duqsweep.control.confirmation import confirmation
from duqsweep.control.export import pick
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.intervals import clopper_pearson, wilson
from duqsweep.control.front.records import Front
from duqsweep.control.report.report import front_csv, print_front, write_report
from duqsweep.control.study.early_stopping import PruneSlow
from duqsweep.control.study.identity import identity
from duqsweep.control.study.optuna_study import open_study
from duqsweep.control.study.search import FixedBudgetSearch
from duqsweep.control.tracking.runs import description, trial_record
from duqsweep.control.trials.reader import TrialReader, read_trials
from duqsweep.control.trials.reference import ensure_reference, sweep_reference
from duqsweep.control.view.headline import headline
from duqsweep.errors import ConfigError
from duqsweep.result import EpisodeRecord
from duqsweep.spec import Trial
from duqsweep.verbs import status
from duqsweep.worker.ledger import make_ledger
from duqsweep.worker.summary import summarise

BY_OBJECT = "objectives=[{name: success_rate.object}, {name: episode_time_s}]"
PRO = ("+sweep=dit_speed", "suite=libero_pro_goal", "budget.episodes_per_trial=50")
Solves = Callable[[int, str, int], bool]  # trial, category, how many of its episodes came before


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        compose([*PRO, *overrides])
    return str(refused.value)


def test_a_category_may_be_an_objective():
    config = compose([*PRO, BY_OBJECT])
    assert [(o.name, o.direction) for o in config.objectives] == [
        ("success_rate.object", "maximize"),
        ("episode_time_s", "minimize"),
    ]


def test_an_unknown_category_is_refused_and_the_suites_are_named():
    said = refusal("objectives=[{name: success_rate.objekt}]")
    assert "no objective 'success_rate.objekt' (did you mean 'success_rate.object'?)" in said
    assert "success_rate.swap" in said
    said = refusal("objectives=[{name: success_rate.object}]", "suite=libero_goal")
    assert (
        said == "there is no objective 'success_rate.object': suite libero_goal has no categories"
    )
    said = refusal(BY_OBJECT, "suite.categories=[original,swap]")
    assert "no objective 'success_rate.object'" in said
    assert "success_rate.original, success_rate.swap" in said


def test_every_category_needs_an_episode():
    said = refusal(BY_OBJECT, "budget.episodes_per_trial=4")
    assert "budget.episodes_per_trial is 4, and success by category needs at least 5" in said
    assert "needs at least 1" in refusal(BY_OBJECT, "budget.episodes_per_trial=0")


def test_restricting_the_categories_makes_another_sweep(tmp_path):
    whole, part = (
        Space.from_config(compose([*PRO, *more]))
        for more in ((), ("suite.categories=[original,object]",))
    )
    assert whole.hash != part.hash
    assert whole.base.suite.total_tasks == 50
    assert part.base.suite.total_tasks == 20


class InstantSweep:
    """A sweep whose trials are evaluated instantly: real study, search, front and report."""

    def __init__(self, folder: Path, solves: Solves, *overrides: str) -> None:
        plans = "enqueue=[reference,seed_current,plan_a,plan_c]"
        words = [*PRO, "budget.trials=4", plans, *overrides]
        folder.mkdir()
        self.folder, self.solves = folder, solves
        self.config: SweepConfig = composed_in(folder, *words)
        space = Space.from_config(self.config)
        (folder / files.SWEEP_YAML).write_text(self.config.yaml)
        files.write_json(folder / files.IDENTITY_JSON, identity(self.config, space))
        self.study = open_study(self.config, space)
        reader = TrialReader(folder)
        rule = PruneSlow(self.config, reader)
        self.search = FixedBudgetSearch(self.study, space, self.config, rule, reader)

    def run(self) -> Front:
        """Run to the end; the front."""
        while (assignment := self.search.next(())) is not None:
            self.evaluate(assignment.trial)
        return compute_front(self.folder, self.config.objectives)

    def evaluate(self, number: int) -> None:
        folder = files.trial_dir(self.folder, number)
        trial = Trial.from_json(files.read_json(folder / files.SPEC_JSON))
        vitals = make_vitals(trial, speedup=1.0 + 0.5 * number)
        records = self.episodes(trial)
        result = summarise(tuple(records), "complete", "walked")
        files.write_json(folder / files.VITALS_JSON, vitals.to_json())
        for record in records:
            files.append_line(folder / files.EPISODES_JSONL, record.to_json())
        files.write_json(folder / files.RESULT_JSON, result.to_json())
        view = next(view for view in read_trials(self.folder) if view.number == number)
        ensure_reference(self.folder, [view])
        self.search.ended(view)

    def episodes(self, trial: Trial) -> list[EpisodeRecord]:
        suite = trial.spec.suite
        walked: dict[str, int] = {}
        records = []
        for entry in make_ledger(suite)[: self.config.budget.episodes_per_trial]:
            category = suite.category(entry.task) or ""
            before = walked.setdefault(category, 0)
            walked[category] += 1
            solved = self.solves(trial.number, category, before)
            where = (entry.suite, entry.task, entry.init_state, entry.seed)
            records.append(EpisodeRecord(entry.i, *where, solved, 90, 18, 0.1, 1.0, 1.1))
        return records


def faster_is_worse_on_objects(trial: int, category: str, before: int) -> bool:
    """Of 10 episodes a category: original 9; object 8, 6, 4, 2 for trials 0 to 3; swap 1; …"""
    solved = {"original": 9, "object": 8 - 2 * trial, "swap": 1, "language": 9, "task": 0}
    return before < solved[category]


def faster_is_better_overall(trial: int, category: str, before: int) -> bool:
    """Only on objects is a slower trial better."""
    if category == "object":
        return before < 8 - 2 * trial
    return before < 5 + trial


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> InstantSweep:
    folder = tmp_path_factory.mktemp("sweeps") / "pro"
    sweep = InstantSweep(folder, faster_is_worse_on_objects, BY_OBJECT)
    write_report(folder, sweep.run(), read_trials(folder))
    return sweep


@pytest.fixture(scope="module")
def content(sweep: InstantSweep) -> dict[str, Any]:
    return dict(files.read_json(sweep.folder / files.FRONT_JSON))


@pytest.fixture(scope="module")
def front(content) -> Front:
    return Front.from_json(content)


def test_optuna_is_told_the_rate_of_the_category(sweep: InstantSweep):
    assert [told.values[0] for told in sweep.study.history()] == [0.8, 0.6, 0.4, 0.2]


def test_every_point_has_counts_and_intervals_of_each_category(content):
    for number, point in enumerate(content["points"]):
        assert list(point["categories"]) == ["original", "language", "object", "swap", "task"]
        low, high = wilson(8 - 2 * number, 10)
        assert point["categories"]["object"] == {
            "episodes": 10,
            "successes": 8 - 2 * number,
            "errors": 0,
            "success_rate": pytest.approx(0.8 - 0.2 * number),
            "success_low": low,
            "success_high": high,
        }
        assert point["success_rate.object"] == pytest.approx(0.8 - 0.2 * number)
        assert point["successes"] == sum(c["successes"] for c in point["categories"].values())


def test_the_front_follows_the_category_that_is_traded(tmp_path: Path, content):
    assert [point["on_front"] for point in content["points"]] == [True] * 4
    by_all = InstantSweep(tmp_path / "all", faster_is_better_overall)
    assert [point.on_front for point in by_all.run().points] == [False, False, False, True]
    by_object = InstantSweep(tmp_path / "object", faster_is_better_overall, BY_OBJECT)
    assert [point.on_front for point in by_object.run().points] == [True] * 4


def test_the_probability_of_the_front_counts_the_categorys_episodes_alone(tmp_path: Path):
    """Of two equal trials, the slower one is rarely on the front; other categories do not count."""

    def equal_on_objects(trial: int, category: str, before: int) -> bool:
        return before < 8 if category == "object" else trial == 0

    points = InstantSweep(tmp_path / "object", equal_on_objects, BY_OBJECT).run().points
    by_all = InstantSweep(tmp_path / "all", equal_on_objects).run().points
    assert by_all[0].p_front == 1.0
    assert 0.05 < (points[0].p_front or 0) < 0.6
    assert points[3].p_front == 1.0


def test_a_trial_that_never_solves_the_traded_category_is_no_candidate(tmp_path: Path):
    def never_objects(trial: int, category: str, before: int) -> bool:
        return category != "object" or (trial == 0 and before < 5)

    points = InstantSweep(tmp_path / "object", never_objects, BY_OBJECT).run().points
    assert [point.on_front for point in points] == [True, False, False, False]


def printed(front: Front, width: int) -> str:
    stream = io.StringIO()
    print_front(front, Console(file=stream, width=width))
    return stream.getvalue()


def test_the_terminal_shows_each_category_within_80_columns(front):
    text = printed(front, 80)
    table = text[text.index("success by category") :].split("\n\n")[0]
    assert "original" in table
    assert "80 (49–94)" in table
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= 80
    assert "80.0 %" in printed(front, 120)  # the objective has a column


def test_the_headline_speaks_of_the_category(front):
    said = headline(front)
    assert "whose success in category object cannot be told from the reference's (80.0 %)" in said


def test_the_page_compares_each_category_with_the_original(sweep: InstantSweep):
    page = (sweep.folder / files.REPORT_HTML).read_text()
    assert "Success by category, on the front" in page
    assert "80.0 % (49–94 %), 8 of 10, -10.0 points" in page
    assert "success rate, category object" in page  # the picture's axis
    assert (
        len(re.findall(r'<th scope="col"[^>]*>(?:task )?9\b', page)) == 1
    )  # ten columns, a row per category


def test_the_csv_has_columns_for_each_category(front):
    rows = list(csv.DictReader(io.StringIO(front_csv(front))))
    assert rows[1]["successes.object"] == "6"
    assert float(rows[1]["success_low.object"]) == pytest.approx(wilson(6, 10)[0])
    assert rows[0]["success_rate.original"] == "0.9"
    assert "categories" not in rows[0]


def test_mlflow_gets_a_metric_for_each_category(sweep: InstantSweep, front):
    view = read_trials(sweep.folder)[2]
    record = trial_record(view, front.points[2], sweep_reference(sweep.folder))
    metrics = {name: value for name, value, _at, _step in record.metrics}
    assert metrics["success_rate/object"] == pytest.approx(0.4)
    assert metrics["success_rate/task"] == 0.0
    assert "| object [%] |" in description(front)
    assert "40 (17–69)" in description(front)


def test_status_shows_each_category(sweep: InstantSweep, capsys):
    assert status.main([str(sweep.folder), "--json"]) == 0
    said = capsys.readouterr().out
    assert '"object": {\n          "episodes": 10,\n          "successes": 8,' in said
    assert status.main([str(sweep.folder)]) == 0
    assert "8 of 10" in capsys.readouterr().out


def test_a_trial_can_be_picked_by_a_category(front):
    assert pick(front, "fastest@success.object>=0.25") == 1
    with pytest.raises(ConfigError, match=r"has success\.object>= 0\.9; .* trial 0, has 0\.490"):
        pick(front, "fastest@success.object>=0.9")
    with pytest.raises(ConfigError, match="no category 'colour'; categories are: original, "):
        pick(front, "fastest@success.colour>=0.9")


def test_a_confirmation_holds_its_categories_jointly(sweep: InstantSweep):
    confirmed = confirmation(sweep.folder, reference=0)
    estimate = confirmed.points[1].categories["object"]
    low, high = clopper_pearson(6, 10, 1 - 0.05 / (4 * 5))  # four points, five categories
    assert (estimate.success_rate, estimate.counts.episodes) == (pytest.approx(0.6), 10)
    assert (estimate.success_low, estimate.success_high) == (
        pytest.approx(low),
        pytest.approx(high),
    )


def test_a_suite_without_categories_shows_and_writes_none_of_it(tmp_path: Path):
    assert SUITE.categories == ()
    sweep = InstantSweep(
        tmp_path / "mini", lambda trial, category, before: trial < 2, "suite=duq_mini"
    )
    front = sweep.run()
    points = front.to_json()["points"]
    assert all("categories" not in point for point in points)
    assert "category" not in printed(front, 120)
    assert not any("." in key for key in points[0])
    confirmed = confirmation(sweep.folder, reference=0).to_json()
    assert all("categories" not in point for point in confirmed["points"])
