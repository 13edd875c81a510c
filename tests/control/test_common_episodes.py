"""The luck of common episodes: against the whole joint normal, and on simulated ledgers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duqsweep.control.config.grammar import parse_domain
from duqsweep.control.config.parameters import Parameter
from duqsweep.control.kghv.angles import angle, angle_noise, rate_sd
from duqsweep.control.kghv.common_episodes import BLOCK, SHARED, common_luck, counts_by_block
from duqsweep.control.kghv.known import Known
from duqsweep.control.kghv.rates import RateModel

PLAYED = (60, 60, 20, 40)


def test_counts_are_those_of_each_block_of_the_ledger():
    outcomes = [(0, True), (3, False), (BLOCK - 1, True), (2 * BLOCK, True)]
    assert counts_by_block(outcomes) == ((2, 3), (0, 0), (1, 1))
    assert counts_by_block([]) == ()


def test_the_luck_is_that_of_conditioning_a_joint_normal_on_differences_between_blocks():
    """All blocks of all trials at once, with levels of the trials that are not known at all."""
    won = [[20, 14, 15], [19, 13, 12], [18], [20, 15]]
    counts = [tuple((w, BLOCK) for w in row) for row in won]
    angles = angle(np.array([sum(row) for row in won]), np.array(PLAYED))
    owners = [(t, b) for t, row in enumerate(won) for b in range(len(row))]
    design = np.zeros((len(owners), 3))
    level = np.zeros((len(owners), 4))
    seen = np.zeros(len(owners))
    for row, (t, b) in enumerate(owners):
        design[row, b], level[row, t] = 1.0, 1.0
        seen[row] = won[t][b] / BLOCK / rate_sd(angles, np.ones(4))[t]
    luck = SHARED / (4 * BLOCK) * np.eye(3)
    covariance = (1 - SHARED) / (4 * BLOCK) * np.eye(len(owners)) + 1e4 * level @ level.T
    gain = luck @ design.T @ np.linalg.inv(covariance + design @ luck @ design.T)
    means, left = gain @ seen, luck - gain @ design @ luck
    shares = np.array([[1, 1, 1], [1, 1, 1], [3, 0, 0], [1.5, 1.5, 0]]) / 3
    found = common_luck(counts, angles)
    np.testing.assert_allclose(found.means, shares @ means, atol=1e-4)
    np.testing.assert_allclose(found.covariances, shares @ left @ shares.T, atol=1e-6)
    assert found.means[2] > found.means[0]  # the first block was easy


def test_trials_whose_episodes_are_their_own_have_no_luck():
    found = common_luck([(), ()], angle(np.array([9.0, 12.0]), np.array([20.0, 20.0])))
    assert (found.means == 0).all()
    assert (found.covariances == 0).all()


def test_a_trial_that_played_only_easy_episodes_is_not_thought_better_than_those_that_played_on():
    """Equal trials on a ledger whose first block is easy: one stops there, the others play on."""
    rng = np.random.default_rng(0)
    chances = np.repeat([0.95, 0.85, 0.85], BLOCK)
    errors = []
    for _ in range(200):
        outcomes = [rng.random(n) < chances[:n] for n in (*[60] * 15, 20)]
        counts = [counts_by_block(list(enumerate(o.tolist()))) for o in outcomes]
        seen = angle(np.array([o.sum() for o in outcomes]), np.array([len(o) for o in outcomes]))
        luck = common_luck(counts, seen).means
        errors.append([(seen - seen[0])[-1], (seen - luck - (seen - luck)[0])[-1]])
    without, corrected = np.abs(np.mean(errors, axis=0))
    assert corrected < 0.5 * without


def trials(slope: float, count: int = 24) -> list[Known]:
    """Trials whose angle depends on their cost alone, which no parameter shows."""
    found = []
    for number in range(count):
        cost = number / count
        episodes = 400
        successes = round(episodes * math.sin(1.0 + slope * (cost - 0.5)) ** 2)
        found.append(Known(number, {"x": number % 3}, successes, episodes, (cost,)))
    return found


@pytest.mark.parametrize("slope", [0.6, 0.0, -0.3])
def test_the_trend_along_the_costs_is_learnt(slope: float):
    model = RateModel((Parameter("x", parse_domain("x", "choice(0, 1, 2)")),))
    known = trials(slope)
    x = model.encoding.encode([trial.params for trial in known])
    costs = np.array([trial.costs for trial in known])
    model.believe(known, x, costs, np.ones(len(known), dtype=bool), steps=20)
    low, high = model.predict(x[:2] * 0 + x[:1], np.array([[0.0], [1.0]]))[0]
    assert high - low == pytest.approx(slope, abs=0.06)


def test_before_anything_is_known_what_costs_more_succeeds_more_often():
    model = RateModel((Parameter("x", parse_domain("x", "choice(0, 1, 2)")),))
    known = [Known(0, {"x": 0}, 10, 20, (0.0,)), Known(1, {"x": 0}, 0, 0, (1.0,))]
    x = model.encoding.encode([trial.params for trial in known])
    angles, variances = model.believe(known, x, np.array([[0.0], [1.0]]), np.ones(2, bool), 0)
    assert angles[1] - angles[0] == pytest.approx(0.25, abs=0.05)
    assert variances[0] < float(angle_noise(20))
