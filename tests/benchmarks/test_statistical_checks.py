"""A cheap form of benchmarks/statistical_checks.py, and its committed results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from search.checks import (
    REFERENCE_RATE,
    chances,
    coverage,
    false_differences,
    front_calibration,
    other_tasks,
)
from search.truths import DEVELOPMENT

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "statistical_checks.json"


def test_simulated_states_have_the_rate_that_was_asked_for_and_differ():
    found = chances([REFERENCE_RATE, 0.5], np.random.default_rng(0))
    assert found.mean(axis=1) == pytest.approx([REFERENCE_RATE, 0.5])
    assert (found[0] >= found[1]).all()
    assert found[1].std() > 0.2


def test_all_intervals_of_a_confirmation_hold_together():
    share = coverage(runs=100, points=2, episodes=30)
    assert share.count >= 0.9 * share.runs  # 95 % less two standard errors


def test_one_configuration_under_many_names_is_rarely_called_different():
    shares = false_differences(runs=60, trials=3, episodes=60, loss=0.0)
    for name in ("p_value_below_0.05", "any_p_value_below_0.05_over_trials", "any_refuted"):
        assert shares[name].count <= 0.09 * shares[name].runs, name
    apart = false_differences(runs=15, trials=3, episodes=60, loss=0.3)
    assert apart["any_refuted"].count == apart["any_refuted"].runs
    assert apart["any_confirmed"].count == 0


def test_a_loss_of_the_margin_is_rarely_confirmed_or_refuted():
    shares = false_differences(runs=60, trials=2, episodes=100, loss=0.05)
    for name in ("any_confirmed", "any_refuted", "verdict_names_a_trial"):
        assert shares[name].count <= 0.11 * shares[name].runs, name


def test_intervals_by_task_hold_the_mean_over_all_tasks():
    shares = other_tasks(runs=1000, tasks=10, each=20, spread=0.7)
    assert shares["clustered_by_task"].count >= 0.93 * 1000
    assert shares["wilson"].count < 0.85 * 1000


def test_stated_chances_of_the_front_separate_who_is_on_it():
    found = front_calibration(DEVELOPMENT["dev_easy"](), "kghv", range(3), 400, every=100)
    low, high = found.within(0.0, 0.2), found.within(0.6, 1.01)
    assert low is not None
    assert high is not None
    assert low.count / low.runs < 0.5 < high.count / high.runs


def test_the_committed_results_hold_what_the_documentation_says():
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    for share in found["confirm"]["all_intervals_hold"].values():
        assert share["runs"] >= 200
        assert share["share"] >= 0.95
    same = found["one_configuration_under_many_names"]
    assert same["no_loss"]["any_p_value_below_0.05_over_trials"]["share"] <= 0.05
    assert same["loss_of_exactly_the_margin"]["any_confirmed"]["low"] <= 0.05
    assert same["loss_of_exactly_the_margin"]["any_refuted"]["low"] <= 0.05
    assert 0.75 <= found["p_front"]["kghv"]["0.8 to 0.9"]["share"] <= 0.95
