"""What a speed-up is made of: factors from unquantized twins, in front.json and in the report."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from synthetic_sweep import (
    OBJECTIVES,
    make_episodes,
    make_result,
    make_trial,
    make_vitals,
    write_trial,
)

from duqsweep import files
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.factors import TWINS_DIR, Form
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.report.page import report_page
from duqsweep.control.report.report import front_csv, write_report
from duqsweep.control.report.surroundings import Surroundings
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.control.twins import read_timings, twin_trials, untimed
from duqsweep.control.view.decomposition import decomposition
from duqsweep.spec import RuntimeSpec, Trial

EPISODES = 12


def trial(number: int, bits: int, steps: int, compiled: bool, replan: int = 5) -> Trial:
    made = make_trial(number, bits, steps, "reference" if number == 0 else None)
    suite = replace(made.spec.suite, replan_steps=replan)
    spec = replace(made.spec, runtime=RuntimeSpec(compile=compiled), suite=suite)
    return replace(made, spec=spec)


def write(folder: Path, made: Trial, speedup: float, episodes: int = EPISODES) -> None:
    played = make_episodes(made.number, episodes, 2.0)  # all succeed
    write_trial(folder, made, make_vitals(made, speedup, noise=0.1), played, make_result(played))


@pytest.fixture
def sweep_dir(tmp_path: Path) -> Path:
    """The reference, and a quantized, compiled trial of four steps that makes half of the calls."""
    folder = tmp_path / "made"
    write(folder, trial(0, 16, 10, compiled=False), 1.0)
    write(folder, trial(1, 4, 4, compiled=True, replan=10), 6.0)
    ensure_reference(folder, read_trials(folder))
    return folder


def point(sweep_dir: Path, number: int) -> FrontPoint:
    return compute_front(sweep_dir, OBJECTIVES).points[number]


def test_without_a_twin_nothing_is_claimed(sweep_dir: Path) -> None:
    assert point(sweep_dir, 1).on_front
    assert point(sweep_dir, 1).factors is None
    front = compute_front(sweep_dir, OBJECTIVES)
    assert decomposition(front) == []
    page = report_page(front, read_trials(sweep_dir), "", Surroundings(folder="sweeps/made"))
    assert "python -m duqsweep twins sweeps/made times the same trials without it" in page


def test_twins_among_the_trials_are_found_and_the_product_is_the_speedup(sweep_dir: Path) -> None:
    write(sweep_dir, trial(2, 16, 4, compiled=False), 2.0, episodes=0)
    write(sweep_dir, trial(3, 16, 4, compiled=True), 5.0, episodes=0)
    front = compute_front(sweep_dir, OBJECTIVES)
    found, reference = front.points[1].factors, front.reference
    assert found is not None
    assert reference is not None
    shares = (found.steps, found.compile, found.quantization, found.replan)
    assert shares == pytest.approx((2.0, 2.5, 1.2, 2.0))
    assert found.twin == "trial 3"
    episode = reference.episode_time_s / (front.points[1].measures["episode_time_s"] or 0)
    assert prod(shares) == pytest.approx(episode)
    assert found.episode == pytest.approx(episode)
    assert found.call == pytest.approx(front.points[1].measures["speedup"])
    assert Front.from_json(front.to_json()) == front
    assert "factors" not in front_csv(front)


def test_what_is_missing_is_timed_once_in_a_folder_of_its_own(sweep_dir: Path) -> None:
    write(sweep_dir, trial(2, 4, 4, compiled=True, replan=8), 6.5)
    views = read_trials(sweep_dir)
    front = compute_front(sweep_dir, OBJECTIVES, views)
    suite = views[0].trial.spec.suite
    forms = untimed(front, views, read_timings(sweep_dir, views))
    assert [(f.policy.num_steps, f.runtime.compile) for f in forms] == [(4, False), (4, True)]
    eager, compiled = twin_trials(sweep_dir, forms, suite)
    write(sweep_dir / TWINS_DIR, eager, 2.0, episodes=0)
    assert [made.number for made in twin_trials(sweep_dir, forms, suite)] == [0, 1]
    front = compute_front(sweep_dir, OBJECTIVES, views)
    assert untimed(front, views, read_timings(sweep_dir, views)) == [Form.twin(compiled.spec)]
    write(sweep_dir / TWINS_DIR, compiled, 8.0, episodes=0)
    found = point(sweep_dir, 1).factors
    assert found is not None
    assert (found.quantization, found.twin) == (pytest.approx(0.75), "twin 1")
    front = compute_front(sweep_dir, OBJECTIVES, views)
    assert untimed(front, views, read_timings(sweep_dir, views)) == []


def test_a_trial_that_is_not_quantized_is_its_own_twin(sweep_dir: Path) -> None:
    write(sweep_dir, trial(2, 16, 3, compiled=False), 14.0)
    found = point(sweep_dir, 2).factors
    assert found is not None
    assert (found.steps, found.compile, found.quantization) == (14.0, 1.0, 1.0)
    assert point(sweep_dir, 0).factors is None  # the reference is made of nothing


def test_the_report_shows_factors_and_the_parts_of_the_twin(sweep_dir: Path) -> None:
    write(sweep_dir, trial(2, 16, 4, compiled=False), 2.0, episodes=0)
    write(sweep_dir, trial(3, 16, 4, compiled=True), 5.0, episodes=0)
    views = read_trials(sweep_dir)
    write_report(sweep_dir, compute_front(sweep_dir, OBJECTIVES, views), views)
    page = (sweep_dir / files.REPORT_HTML).read_text()
    assert "What made them fast" in page
    assert '["quantization","1.20×"]' in page
    assert '"twin":[["vision","2.1 ms"]' in page


def test_other_times_of_the_steps_are_another_form_than_the_references() -> None:
    form = Form.twin(trial(0, 16, 10, compiled=False).spec)
    assert form.is_reference
    shifted = replace(form, policy=replace(form.policy, schedule="shifted"))
    assert not shifted.is_reference
