"""The statistics of a front against slow, independent references."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duqsweep.control.front.intervals import probability_at_least
from duqsweep.control.front.pareto import (
    Candidate,
    FrontDraws,
    hypervolume,
    non_dominated,
    on_front,
    p_front,
)

small = st.integers(0, 5).map(float)
directions = st.sampled_from(["maximize", "minimize"])


@st.composite
def clouds(draw):
    count = draw(st.integers(1, 4))
    points = draw(st.lists(st.tuples(*[small] * count), min_size=1, max_size=8))
    return points, draw(st.lists(directions, min_size=count, max_size=count))


def better(a: float, b: float, direction: str) -> bool:
    return a > b if direction == "maximize" else a < b


def dominates(p, q, ways) -> bool:
    no_worse = not any(better(b, a, way) for a, b, way in zip(p, q, ways, strict=True))
    return no_worse and any(better(a, b, way) for a, b, way in zip(p, q, ways, strict=True))


@given(clouds())
def test_a_point_is_on_the_front_when_no_other_dominates_it(cloud):
    points, ways = cloud
    expected = [not any(dominates(q, p, ways) for q in points) for p in points]
    assert non_dominated(points, ways) == expected


# Numbers that are lost in a sum, so that the order of sums says nothing about them.
awkward = st.sampled_from([0.0, 1e-30, 1.0, 1.0 + 2**-52, 3.0, 1e30])


@given(st.data(), st.integers(1, 4), st.integers(1, 9))
def test_the_fronts_of_many_draws_are_those_of_each(data, objectives, count):
    point = st.tuples(*[awkward] * objectives)
    draws = data.draw(
        st.lists(st.lists(point, min_size=count, max_size=count), min_size=1, max_size=4)
    )
    ways = ["minimize"] * objectives
    losses = np.array(draws).reshape(len(draws), count, objectives)
    expected = [[not any(dominates(q, p, ways) for q in draw) for p in draw] for draw in draws]
    assert on_front(losses).tolist() == expected


@given(st.integers(0, 2**31))
@settings(max_examples=10)
def test_one_rate_of_all_episodes_is_what_no_mention_of_rates_means(seed):
    rng = np.random.default_rng(seed)
    outcomes = [dict(enumerate(rng.random(12) < rate)) for rate in (0.9, 0.6)]
    pair = [Candidate(won, (cost,)) for won, cost in zip(outcomes, (2.0, 1.0), strict=True)]
    chosen = [replace(candidate, rates_of=(set(range(12)),)) for candidate in pair]
    assert p_front(pair, seed=seed) == p_front(chosen, seed=seed)


def test_a_rate_of_some_episodes_follows_their_beta_posterior():
    """Of ten positions five count: 4 of 5 against 2 of 5, and the others say the opposite."""
    good = Candidate({i: i < 4 for i in range(10)}, (2.0,))
    fast = Candidate({i: i < 2 or i >= 5 for i in range(10)}, (1.0,))
    by_five = [replace(candidate, rates_of=(set(range(5)),)) for candidate in (good, fast)]
    chance = p_front(by_five, draws=20_000)[0]
    rng = np.random.default_rng(1)
    # Paired: both share the weights of the five positions; a success and a failure join each.
    weights = rng.exponential(size=(20_000, 5))
    prior = rng.exponential(size=(2, 2, 20_000))
    rates = [
        (weights[:, :won].sum(1) + more[0]) / (weights.sum(1) + more.sum(0))
        for won, more in zip((4, 2), prior, strict=True)
    ]
    assert chance == pytest.approx((rates[0] > rates[1]).mean(), abs=0.015)
    assert p_front([good, fast], draws=20_000)[0] < chance


def test_two_rates_may_both_keep_a_trial_on_the_front():
    """Each is surely better in one half of the episodes; over all of them neither is."""
    halves = (set(range(60)), set(range(60, 120)))
    left = Candidate({i: i < 60 for i in range(120)}, (1.0,))
    right = Candidate({i: i >= 60 for i in range(120)}, (1.0,))
    assert p_front([replace(c, rates_of=halves) for c in (left, right)]) == [1.0, 1.0]
    assert max(p_front([left, right])) < 0.7


def test_equal_points_share_the_front():
    assert non_dominated([(0.9, 1.0), (0.9, 1.0)], ["maximize", "minimize"]) == [True, True]


def cells_dominated(points, corner, ways) -> float:
    """Counts unit cells of the grid; exact because every coordinate is a whole number."""
    volume = 0
    for cell in itertools.product(range(5), repeat=len(corner)):
        middle = [index + 0.5 for index in cell]
        below_corner = all(
            better(m, c, way) for m, c, way in zip(middle, corner, ways, strict=True)
        )
        volume += below_corner and any(
            all(better(p, m, way) for p, m, way in zip(point, middle, ways, strict=True))
            for point in points
        )
    return float(volume)


@settings(max_examples=60)
@given(clouds())
def test_hypervolume_counts_the_dominated_cells(cloud):
    points, ways = cloud
    corner = [0.0 if way == "maximize" else 5.0 for way in ways]
    assert hypervolume(points, corner, ways) == pytest.approx(cells_dominated(points, corner, ways))


def test_points_beyond_the_reference_add_nothing():
    ways = ["maximize", "minimize"]
    assert hypervolume([(0.5, 3.0)], (0.0, 2.0), ways) == 0.0
    assert hypervolume([], (0.0, 2.0), ways) == 0.0
    assert hypervolume([(0.5, 1.0), (0.5, 3.0)], (0.0, 2.0), ways) == pytest.approx(0.5)


def outcomes(successes: int, episodes: int) -> dict[int, bool]:
    return {i: i < successes for i in range(episodes)}


def test_a_clearly_dominated_trial_has_no_chance():
    fast_and_good = Candidate(outcomes(95, 100), (1.0,))
    slow_and_bad = Candidate(outcomes(30, 100), (2.0,))
    assert p_front([fast_and_good, slow_and_bad]) == [1.0, pytest.approx(0.0, abs=1e-3)]


def test_a_slower_trial_is_on_the_front_as_often_as_its_rate_is_higher():
    # Disjoint episodes, so the rates are independent Beta variables.
    quick = Candidate({i: i < 15 for i in range(20)}, (1.0,))
    slow = Candidate({100 + i: i < 18 for i in range(20)}, (2.0,))
    expected = probability_at_least(18, 20, 15, 20)
    assert p_front([quick, slow], draws=20000)[1] == pytest.approx(expected, abs=0.015)


def test_common_episodes_tell_two_trials_apart_better_than_disjoint_ones():
    quick = Candidate(outcomes(40, 60), (1.0,))
    paired = Candidate(outcomes(46, 60), (2.0,))
    apart = Candidate({100 + i: won for i, won in outcomes(46, 60).items()}, (2.0,))
    assert p_front([quick, paired])[1] > p_front([quick, apart])[1] + 0.05


def test_noise_of_a_cost_lets_near_equal_times_share_the_front():
    same = outcomes(50, 50)
    near = [Candidate(same, (1.00,)), Candidate(same, (1.01,))]
    exact, noisy = p_front(near), p_front(near, cost_noise=(0.02,))
    assert noisy[1] > exact[1] - 0.02
    assert noisy[0] < exact[0]


def test_the_same_seed_gives_the_same_probabilities():
    candidates = [Candidate(outcomes(k, 20), (1.0 + k, 3.0 - k / 9)) for k in range(6)]
    assert p_front(candidates, seed=3) == p_front(candidates, seed=3)


def test_a_thousand_trials_are_judged_quickly():
    rng = np.random.default_rng(0)
    candidates = [
        Candidate({i: bool(rng.random() < 0.8) for i in range(50)}, (float(rng.random()),))
        for _ in range(1000)
    ]
    probabilities = p_front(candidates, draws=200)
    assert len(probabilities) == 1000
    assert max(probabilities) > 0.5


@given(st.integers(0, 2**31), st.integers(1, 2))
@settings(max_examples=15)
def test_candidates_that_join_change_and_leave_are_judged_as_if_all_were_new(seed, costs):
    rng = np.random.default_rng(seed)
    noise = (0.05,) * costs

    def candidate() -> Candidate:
        won = rng.random(8) < rng.random()
        return Candidate(dict(enumerate(map(bool, won))), tuple(rng.integers(1, 5, costs) / 2.0))

    kept = FrontDraws(noise, draws=100)
    shown: dict[int, Candidate] = {}
    for key in range(12):
        shown[key] = candidate()
        if rng.random() < 0.3:
            shown[int(rng.integers(0, key + 1))] = candidate()
        if rng.random() < 0.2:
            del shown[int(rng.choice(list(shown)))]
        chances = kept.update(shown)
        assert chances == FrontDraws(noise, draws=100).update(dict(reversed(shown.items())))
        assert not shown or sum(chances.values()) > 0.999  # somebody is on the front of each draw
