"""Intervals of success rates against slow, independent references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special  # scipy.stats takes a second to import

from duqsweep.control.front.intervals import (
    clopper_pearson,
    clustered_by_task,
    probability_at_least,
    student_quantile,
    wilson,
)
from duqsweep.errors import SpecError


@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_interval_is_the_beta_quantile(successes, failures):
    episodes = successes + failures
    low, high = clopper_pearson(successes, episodes)
    expected_low = special.betaincinv(successes, failures + 1, 0.025) if successes else 0.0
    expected_high = special.betaincinv(successes + 1, failures, 0.975) if failures else 1.0
    assert low == pytest.approx(expected_low, abs=1e-9)
    assert high == pytest.approx(expected_high, abs=1e-9)


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_bounds_are_where_the_score_test_just_rejects(successes, failures):
    episodes = successes + failures
    rate = successes / episodes
    for bound in wilson(successes, episodes):
        if 0 < bound < 1:
            score = abs(rate - bound) / math.sqrt(bound * (1 - bound) / episodes)
            assert score == pytest.approx(special.ndtri(0.975), rel=1e-6)


def test_wilson_of_18_of_20_is_what_the_textbook_says():
    assert wilson(18, 20) == pytest.approx((0.699, 0.972), abs=5e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 20)[0] == 0.0


def test_more_successes_than_episodes_are_refused():
    with pytest.raises(SpecError, match="3 of 2"):
        wilson(3, 2)


@settings(max_examples=20)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_probability_of_the_better_rate_is_the_integral(s1, f1, s2, f2):
    grid = np.linspace(0, 1, 4001)
    density = grid**s1 * (1 - grid) ** f1 / special.beta(s1 + 1, f1 + 1)
    expected = np.trapezoid(density * special.betainc(s2 + 1, f2 + 1, grid), grid)
    assert probability_at_least(s1, s1 + f1, s2, s2 + f2) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 40])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.999])
def test_students_quantile_is_scipys(probability, freedom):
    expected = special.stdtrit(freedom, probability)
    assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9)


def test_tasks_that_differ_widen_the_interval_and_equal_ones_hardly_do():
    alike = clustered_by_task([(16, 20)] * 6)
    apart = clustered_by_task([(20, 20)] * 4 + [(8, 20)] * 2)
    assert alike is not None
    assert apart is not None
    plain = wilson(96, 120)
    assert apart[0] < alike[0] < plain[0] < plain[1] < alike[1] < apart[1]
    assert alike[1] - alike[0] < 1.4 * (plain[1] - plain[0])  # Student with 5 instead of a normal
    assert apart[1] - apart[0] > 3 * (plain[1] - plain[0])


def test_one_task_says_nothing_of_others():
    assert clustered_by_task([(5, 6)]) is None
    assert clustered_by_task([(5, 6), (0, 0)]) is None
    low, high = clustered_by_task([(6, 6), (6, 6)]) or (0.0, 0.0)
    assert 0 < low < wilson(12, 12)[0]
    assert high == 1.0


def test_the_interval_by_task_covers_where_wilsons_does_not():
    """Tasks are drawn from many with rates of their own; the mean over all of them is wanted."""
    rng = np.random.default_rng(0)
    runs, tasks, each, mean = 600, 8, 15, 0.75
    rates = rng.beta(4 * mean, 4 * (1 - mean), size=(runs, tasks))
    won = rng.binomial(each, rates)
    clustered = [clustered_by_task([(int(s), each) for s in row]) for row in won]
    covered = np.mean([low <= mean <= high for low, high in filter(None, clustered)])
    plain = [wilson(int(row.sum()), tasks * each) for row in won]
    assert 0.92 <= covered <= 0.99
    assert np.mean([low <= mean <= high for low, high in plain]) < 0.85
