"""From the files of trials to the values in the study and the front that is shown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_sweep import (
    OBJECTIVES,
    REFERENCE_MS,
    SUITE,
    make_episodes,
    make_result,
    make_trial,
    make_vitals,
    write_complete,
    write_sweep,
    write_trial,
)

from duqsweep import files
from duqsweep.control.front.content import SLACK, compute_front
from duqsweep.control.front.history import FrontHistory
from duqsweep.control.front.intervals import wilson
from duqsweep.control.front.objectives import Objective, objective_values
from duqsweep.control.front.pareto import hypervolume, non_dominated
from duqsweep.control.front.records import Front, read_front
from duqsweep.control.trials.reader import TrialReader, TrialView, read_trials
from duqsweep.control.trials.reference import ensure_reference, sweep_reference
from duqsweep.control.view.tables import notes
from duqsweep.errors import ConfigError
from duqsweep.result import TrialResult

PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "dit_speed"
CRASH = TrialResult("failed", "out of memory", 0, 0, 0, None, "OutOfMemory")
REFERENCE_S = REFERENCE_MS / 1000 * SUITE.nominal_calls


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweeps") / "dit_speed")


def view_of(sweep_dir: Path, number: int = 0) -> TrialView:
    return next(view for view in read_trials(sweep_dir) if view.number == number)


def front_json(sweep_dir: Path) -> dict[str, Any]:
    return compute_front(sweep_dir, OBJECTIVES).to_json()


def test_a_folder_without_trials_has_an_empty_front(tmp_path: Path) -> None:
    front = compute_front(tmp_path, OBJECTIVES)
    assert (front.points, front.hypervolume, front.reference) == ((), 0.0, None)


def test_a_running_trial_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    write_trial(tmp_path, make_trial(3))
    view = view_of(tmp_path, 3)
    assert (view.outcome, view.vitals, view.episodes) == ("running", None, ())
    vitals = make_vitals(view.trial, 2.0)
    write_trial(tmp_path, view.trial, vitals, make_episodes(3, 5, 1.0))
    view = view_of(tmp_path, 3)
    assert view.vitals == vitals
    assert (view.counts.successes, view.counts.failures, view.counts.errors) == (5, 0, 0)


def test_a_torn_last_line_of_a_log_is_not_an_episode(tmp_path: Path) -> None:
    write_trial(tmp_path, make_trial(0), episodes=make_episodes(0, 2, 1.0))
    with (files.trial_dir(tmp_path, 0) / files.EPISODES_JSONL).open("a") as log:
        log.write('{"i": 2, "suite": "duq_')
    assert len(view_of(tmp_path).episodes) == 2


def test_an_errored_episode_counts_neither_way_and_its_retry_replaces_it(tmp_path: Path) -> None:
    good = make_episodes(0, 3, 1.0)
    errored = dataclasses.replace(good[1], success=False, error="RenderError: no context")
    retried = dataclasses.replace(good[2], success=True, attempt=1)
    broken = dataclasses.replace(good[2], success=False, error="RenderError: no context")
    write_trial(tmp_path, make_trial(0), episodes=[good[0], errored, broken, retried])
    counts = view_of(tmp_path).counts
    assert (counts.successes, counts.failures, counts.errors) == (2, 0, 1)


def test_reading_again_parses_only_what_changed(tmp_path: Path) -> None:
    for number in (0, 1):
        write_trial(tmp_path, make_trial(number))
    reader = TrialReader(tmp_path)
    before = reader.read()
    write_trial(tmp_path, make_trial(1), make_vitals(make_trial(1), 1.0))
    after = reader.read()
    assert after[0] is before[0]
    assert after[1] is not before[1]


def test_the_first_vitals_become_the_sweeps_reference_for_good(tmp_path: Path) -> None:
    for number in (4, 9):
        trial = make_trial(number)
        write_trial(tmp_path, trial, make_vitals(trial, 2.0, noise=number / 10))
    views = read_trials(tmp_path)
    first = ensure_reference(tmp_path, views)
    assert first is not None
    assert first.trial == 4
    assert ensure_reference(tmp_path, views[1:]) == first == sweep_reference(tmp_path)


def test_time_is_the_sweeps_reference_over_the_trials_own_ratio(tmp_path: Path) -> None:
    # Two nodes, one 30 % slower: equal ratios are equal times.
    for number, noise in ((0, 0.0), (1, 0.3)):
        trial = make_trial(number)
        vitals, episodes = make_vitals(trial, 2.0, noise), make_episodes(number, 4, 1.0)
        write_trial(tmp_path, trial, vitals, episodes, make_result(episodes))
    views = read_trials(tmp_path)
    reference = ensure_reference(tmp_path, views)
    told = [objective_values(view, OBJECTIVES, reference) for view in views]
    assert told[0] == told[1] == (1.0, pytest.approx(REFERENCE_S / 2))


def test_a_crash_is_told_as_no_success_and_the_worst_cost_that_others_showed(
    tmp_path: Path,
) -> None:
    write_complete(tmp_path, make_trial(0), 2.0, 1.0, 4)
    write_complete(tmp_path, make_trial(1), 0.5, 1.0, 4)
    write_trial(tmp_path, make_trial(2), result=CRASH)
    views = read_trials(tmp_path)
    reference = ensure_reference(tmp_path, views)
    told = objective_values(views[2], OBJECTIVES, reference, views)
    assert told == (0.0, pytest.approx(REFERENCE_S / 0.5))
    assert objective_values(views[2], OBJECTIVES, reference) is None
    assert objective_values(views[2], OBJECTIVES, None, views) is None


def test_a_trial_that_was_ruled_out_is_told_the_worst_success_that_others_had(
    tmp_path: Path,
) -> None:
    for number, rate in ((0, 1.0), (1, 0.5)):
        write_complete(tmp_path, make_trial(number), 2.0, rate, 12)
    slow = TrialResult("stopped", "slow", 0, 0, 0, None)
    write_trial(tmp_path, make_trial(2), make_vitals(make_trial(2), 0.5), result=slow)
    views = read_trials(tmp_path)
    reference = ensure_reference(tmp_path, views)
    rates = [view.result.success_rate for view in views[:2] if view.result]
    told = objective_values(views[2], OBJECTIVES, reference, views)
    assert told == (min(rates), pytest.approx(REFERENCE_S / 0.5))
    assert objective_values(views[2], OBJECTIVES, reference) is None


def test_values_come_in_the_order_of_the_objectives(tmp_path: Path) -> None:
    write_complete(tmp_path, make_trial(0, bits=4), 2.0, 1.0, 4)
    views = read_trials(tmp_path)
    wanted = [Objective("weights_mb", "minimize"), Objective("action_error", "minimize")]
    told = objective_values(views[0], wanted, ensure_reference(tmp_path, views))
    assert views[0].vitals is not None
    assert told == (views[0].vitals.weights_mb, views[0].vitals.action_error)


def test_modelled_time_comes_from_arithmetic_alone(tmp_path: Path) -> None:
    trial = make_trial(0)
    vitals = make_vitals(trial, 2.0)
    priced = dataclasses.replace(
        vitals, modelled={**vitals.modelled, "h200_seconds_per_call": 0.01}
    )
    wanted = [Objective("modelled_time_s", "minimize")]
    unpriced = vitals  # as written before there was this objective
    for known, told in ((priced, (0.01 * SUITE.nominal_calls,)), (unpriced, None)):
        write_trial(tmp_path, trial, known)
        view = view_of(tmp_path)
        reference = ensure_reference(tmp_path, [view])
        assert objective_values(view, wanted, reference) == told
    front = compute_front(tmp_path, wanted)
    assert any("modelled_time_s: not measured" in note for note in notes(front))


def test_an_unknown_objective_is_refused_by_name(tmp_path: Path) -> None:
    write_complete(tmp_path, make_trial(0), 2.0, 1.0, 4)
    views = read_trials(tmp_path)
    reference = ensure_reference(tmp_path, views)
    with pytest.raises(ConfigError, match="no measure 'sucess'; measures are: success_rate, "):
        objective_values(views[0], [Objective("sucess", "maximize")], reference)


def test_content_has_the_agreed_keys_and_every_told_trial(sweep_dir: Path) -> None:
    content = compute_front(sweep_dir, OBJECTIVES).to_json()
    assert {
        "sweep",
        "objectives",
        "reference",
        "simulator",
        "hypervolume",
        "counts",
        "episodes",
        "points",
        "verdict",
        "answer",
        "importances",
    } == set(content)
    assert content["sweep"] == "dit_speed"
    counts = {"complete": 29, "stopped": 1, "failed": 1, "running": 1, "open": 0}
    assert content["counts"] == counts
    assert [point["trial"] for point in content["points"]] == list(range(31))
    keys = {
        "trial params success_rate success_low success_high episodes episode_time_s speedup kernel",
        "weights_mb on_front p_front outcome name action_error steps_to_success reason",
    }
    assert set(" ".join(keys).split()) <= set(content["points"][0])
    json.dumps(content, allow_nan=False)


def test_intervals_are_wilsons_over_episodes_that_ran(sweep_dir: Path) -> None:
    for point in front_json(sweep_dir)["points"]:
        if point["episodes"]:
            bounds = point["success_low"], point["success_high"]
            assert bounds == wilson(point["successes"], point["episodes"] - point["errors"])


def test_nobody_on_the_front_is_beaten_and_everyone_else_is(sweep_dir: Path) -> None:
    points = [p for p in front_json(sweep_dir)["points"] if p["outcome"] == "complete"]
    for point in points:
        beaten = any(
            other["success_rate"] >= point["success_rate"]
            and other["episode_time_s"] <= point["episode_time_s"]
            and (other["success_rate"], other["episode_time_s"])
            != (point["success_rate"], point["episode_time_s"])
            for other in points
        )
        assert point["on_front"] == (not beaten and point["success_rate"] > 0)


def test_failed_stopped_and_never_succeeding_trials_are_never_on_the_front(tmp_path: Path) -> None:
    write_complete(tmp_path, make_trial(0), 1.0, 1.0, 4)
    write_complete(tmp_path, make_trial(1), 9.0, 0.0, 4)
    fast = make_trial(2)
    stopped = TrialResult("stopped", "told to", 1, 1, 0, 1.0)
    write_trial(tmp_path, fast, make_vitals(fast, 9.0), make_episodes(2, 1, 1.0), stopped)
    write_trial(tmp_path, make_trial(3), result=CRASH)
    ensure_reference(tmp_path, read_trials(tmp_path))
    points = front_json(tmp_path)["points"]
    assert [point["on_front"] for point in points] == [True, False, False, False]


def test_hypervolume_of_one_perfect_trial_is_the_rectangle_to_the_corner(tmp_path: Path) -> None:
    write_complete(tmp_path, make_trial(0), 2.0, 1.0, 4)
    ensure_reference(tmp_path, read_trials(tmp_path))
    volume = compute_front(tmp_path, OBJECTIVES).hypervolume
    assert volume == pytest.approx(1.0 * (SLACK * REFERENCE_S - REFERENCE_S / 2))


def test_history_ends_at_the_first_running_trial_and_at_the_whole_fronts_volume(
    sweep_dir: Path,
) -> None:
    front, views = compute_front(sweep_dir, OBJECTIVES), read_trials(sweep_dir)
    steps = FrontHistory().steps(front, views)
    assert [step.trial for step in steps] == list(range(31))
    volumes = [step.hypervolume for step in steps]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(front.hypervolume)
    assert FrontHistory().steps(front, views[-1:]) == []


@pytest.mark.parametrize("count", [2, 3])
def test_a_step_of_the_history_measures_the_volume_only_where_the_front_has_changed(
    sweep_dir: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objectives = (*OBJECTIVES, Objective("weights_mb", "minimize"))[:count]
    front, views = compute_front(sweep_dir, objectives), read_trials(sweep_dir)
    measured: list[int] = []

    def measure(points: Any, corner: Any, directions: Any) -> float:
        assert non_dominated(points, directions) == [True] * len(points)
        measured.append(len(points))
        return hypervolume(points, corner, directions)

    monkeypatch.setattr("duqsweep.control.front.history.hypervolume", measure)
    steps = FrontHistory().steps(front, views)
    volumes = [step.hypervolume for step in steps]
    assert len(measured) < len(steps)
    assert volumes[-1] == pytest.approx(front.hypervolume)


def test_a_third_objective_joins_the_front(sweep_dir: Path) -> None:
    three = (*OBJECTIVES, Objective("weights_mb", "minimize"))
    two_wide = {p["trial"] for p in front_json(sweep_dir)["points"] if p["on_front"]}
    wide = {point.trial: point.p_front for point in compute_front(sweep_dir, three).members}
    assert two_wide < set(wide)
    assert all(chance is not None and 0 <= chance <= 1 for chance in wide.values())


def test_a_front_is_read_back_as_it_was_written(sweep_dir: Path, tmp_path: Path) -> None:
    front = compute_front(sweep_dir, OBJECTIVES)
    assert read_front(tmp_path) is None
    files.write_json(tmp_path / files.FRONT_JSON, front.to_json())
    assert read_front(tmp_path) == front


def test_the_published_front_can_be_read() -> None:
    front = read_front(PUBLISHED)
    assert front is not None
    assert front.members


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"sweep": "dit_', "is not valid JSON"),
        ('{"runs": []}', "Front has no key 'runs'"),
        ("[]", "Front must be an object"),
    ],
)
def test_a_torn_or_foreign_front_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / files.FRONT_JSON
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as refused:
        read_front(tmp_path)
    assert str(refused.value).startswith(f"{path} is no front of this version")
    assert "\n" not in str(refused.value)


def test_a_point_with_a_foreign_key_or_value_is_refused(sweep_dir: Path) -> None:
    for key, value, said in (
        ("colour", 1.0, "unknown key 'colour'"),
        ("weights_mb", "heavy", r"points\[0\].measures.weights_mb must be float"),
        ("outcome", "lost", r"points\[0\].outcome must be one of"),
    ):
        data = front_json(sweep_dir)
        data["points"][0][key] = value
        with pytest.raises(ConfigError, match=said):
            Front.from_json(data)
