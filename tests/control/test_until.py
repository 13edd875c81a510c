"""`budget.until`: the question that ends a sweep early."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_kghv_search import KGHV as WORDS
from test_kghv_search import SWEEP, lengths, run

from duqsweep.control.config.sweep_config import compose
from duqsweep.control.config.until import Until
from duqsweep.control.front.beliefs import Answer, read_beliefs
from duqsweep.control.front.pareto import hypervolume
from duqsweep.control.front.records import Front, read_front
from duqsweep.control.kghv.angles import rate
from duqsweep.control.kghv.chooser import NewPoints, Prices, Region
from duqsweep.control.kghv.known import Known
from duqsweep.control.kghv.posterior import Posterior
from duqsweep.control.kghv.question import (
    Able,
    answer_fastest,
    answer_front,
    choose_for_fastest,
    fastest,
    front_loss,
)
from duqsweep.control.study.kghv_search import KghvSearch
from duqsweep.control.view.headline import answer_line
from duqsweep.errors import ConfigError

QUESTION = Until("fastest@success>=0.8", 0.95, 0.8, None)


def believed(rates: list[float], sd: float, log_times: list[float]) -> tuple[Posterior, Able]:
    angles = np.arcsin(np.sqrt(rates))
    costs = np.array(log_times)[:, None]
    posterior = Posterior(angles, sd**2 * np.eye(len(rates)), costs)
    return posterior, Able(np.arange(len(rates)), costs)


def new_points(rates: list[float], sd: float, log_times: list[float]) -> NewPoints:
    count = len(rates)
    angles = np.arcsin(np.sqrt(rates))
    costs = np.array(log_times)[:, None]
    points = [{"policy.num_steps": i} for i in range(count)]
    variances = (np.full(count, sd**2), np.full((count, 1), 1e-4))
    return NewPoints(points, angles, variances[0], costs, variances[1], np.ones(count))


def test_the_fastest_is_the_first_whose_rate_is_high_enough():
    posterior, able = believed([0.95, 0.90, 0.6], 0.01, [1.0, 0.5, 0.0])
    assert fastest(posterior, able, 0, 0.8) == (1, 1.0)
    assert fastest(posterior, able, 0, 0.93)[0] == 0


def test_its_probability_is_that_of_all_faster_ones_to_fail():
    sd, least = 0.1, 0.8
    posterior, able = believed([0.95, 0.78], sd, [1.0, 0.0])
    place, chance = fastest(posterior, able, 0, least)
    limit = math.asin(math.sqrt(least))
    has = [(a - limit) / sd for a in posterior.angles]
    above = [0.5 * (1 + math.erf(z / math.sqrt(2))) for z in has]
    assert place == 0
    assert chance == pytest.approx(above[0] * (1 - above[1]), abs=0.03)


def test_times_that_two_benchmarks_would_not_tell_apart_are_a_tie():
    posterior, able = believed([0.95, 0.95], 0.01, [0.03, 0.0])
    assert fastest(posterior, able, 0, 0.8)[1] == 1.0


def answered(new: NewPoints, taken=lambda _: False) -> Answer:
    posterior, able = believed([0.95, 0.60], 0.02, [1.0, 0.0])
    known = [Known(7, {}, 95, 100, (1.0,)), Known(8, {}, 60, 100, (0.0,))]
    return answer_fastest(QUESTION, posterior, able, known, new, 0, taken)


def test_it_is_known_once_no_new_point_is_likely_to_beat_it():
    slower = answered(new_points([0.99], 0.01, [1.5]))
    assert (slower.trial, slower.is_known, slower.rival_probability) == (7, True, 0.0)
    failing = answered(new_points([0.5], 0.05, [0.2]))
    assert failing.is_known
    better = new_points([0.9], 0.05, [0.2])
    assert not answered(better).is_known
    assert answered(better, taken=lambda _: True).is_known  # no new trial can be started


def test_the_next_batch_goes_where_the_question_is_open():
    posterior, _ = believed([0.95, 0.81, 0.3], 0.05, [1.0, 0.5, 0.0])
    known = [Known(i, {}, 9, 10, (cost,)) for i, cost in enumerate([1.0, 0.5, 0.0])]
    prices = Prices(lambda costs: np.exp(costs[:, 0]), 100.0)
    sure = new_points([0.2], 0.01, [0.0])
    options = {"time": 0, "prices": prices, "batch": 10, "taken": lambda _: False}
    choice = choose_for_fastest(QUESTION, posterior, known, sure, **options)
    assert choice.number == 1
    known[1] = replace(known[1], is_done=True)
    assert choose_for_fastest(QUESTION, posterior, known, sure, **options).number != 1
    open_point = new_points([0.81], 0.2, [0.0])
    options["prices"] = Prices(prices.episode_s, 0.0)
    choice = choose_for_fastest(QUESTION, posterior, known, open_point, **options)
    assert choice.params == open_point.points[0]


def test_the_loss_of_a_front_is_what_it_lacks_in_each_draw():
    posterior, able = believed([0.80, 0.82, 0.6], 0.05, [0.2, 0.4, 0.6])
    region = Region((1.0,), 0.5)
    ways = ("maximize", "minimize")

    def volume(rates, places) -> float:
        rows = [(rates[i], float(able.costs[i, 0])) for i in places]
        return hypervolume(rows, (0.5, 1.0), ways)

    draws = posterior.draws[:100]
    whole = [volume(row, (0, 1, 2)) for row in draws]
    shown = [volume(row, (0, 1)) for row in draws]
    assert front_loss(posterior, able, region) == pytest.approx(1 - sum(shown) / sum(whole))
    sharp = Posterior(posterior.angles, 1e-8 * np.eye(3), posterior.costs)
    assert front_loss(sharp, able, region) == pytest.approx(0.0, abs=1e-3)


def test_the_front_is_known_when_neither_trials_nor_new_points_may_add_much():
    until = Until("front@0.05", 0.95, None, 0.05)
    posterior, able = believed([0.80, 0.90], 0.005, [0.2, 0.6])
    region = Region((1.0,), 0.5)
    poor, rich = new_points([0.55], 0.01, [0.3]), new_points([0.95], 0.05, [0.1])
    assert answer_front(until, posterior, able, poor, region, lambda _: False).is_known
    found = answer_front(until, posterior, able, rich, region, lambda _: False)
    assert (found.is_known, found.trial) == (False, None)
    assert found.new_gain > 0.2


def test_a_sweep_asks_writes_its_answer_and_stops(tmp_path: Path):
    words = (*WORDS, "budget.trials=12", "budget.until='front@0.9'")
    run(tmp_path / "s", KghvSearch, *words)
    played = sum(lengths(tmp_path / "s").values())
    assert played < 12 * 8
    answer = read_beliefs(tmp_path / "s").answer
    assert answer is not None
    assert answer.is_known
    front = read_front(tmp_path / "s")
    assert front is not None
    assert front.answer == answer
    assert "Question front@0.9: answered. The front is expected" in (answer_line(front) or "")
    run(tmp_path / "s", KghvSearch, *words)  # once more: nothing is left to do
    assert sum(lengths(tmp_path / "s").values()) == played
    named = Answer("fastest@success>=0.8", False, front.points[0].trial, 0.5, 0.25, None, None)
    line = answer_line(replace(front, answer=named))
    assert "not answered yet. Of the trials it is trial 0 reference with probability 0.50" in line
    assert Front.from_json(front.to_json()) == front


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["budget.until=soon"], "budget.until is fastest@success>=X or front@E"),
        (["budget.until='front@1.5'"], "between 0 and 1; got 'front@1.5'"),
        (["budget.until='front@0.1'", "budget.until_probability=1"], "from 0.5 to below 1, got 1"),
        (["budget.until='front@0.1'", "sampler=tpe"], "needs sampler=kghv"),
        (
            [
                "budget.until='fastest@success>=0.9'",
                "objectives=[{name: success_rate},{name: weights_mb}]",
            ],
            "needs one of the objectives episode_time_s, call_ms; there are success_rate, weights",
        ),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        compose([*SWEEP, "sampler=kghv", f"dir={tmp_path}", *words])


def test_an_answer_follows_from_draws_of_rates():
    posterior, _ = believed([0.9], 0.1, [0.0])
    expected = rate(posterior.angles + 0.1 * np.random.default_rng(0).standard_normal((1000, 1)))
    np.testing.assert_allclose(posterior.draws, expected, atol=1e-6)
