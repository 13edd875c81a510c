"""The verdict by margin: its test against enumeration, and what it says of a sweep."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
from synthetic_sweep import (
    OBJECTIVES,
    make_episodes,
    make_result,
    make_trial,
    make_vitals,
    write_trial,
)

from duqsweep.control.config.sweep_config import compose
from duqsweep.control.front.betting import BETS, episodes_needed, log_evidence, loss_bound
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.pairs import Pairs, loss_below, score
from duqsweep.control.front.records import Front
from duqsweep.control.front.verdict import verdict
from duqsweep.control.trials.reader import TrialView, read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.errors import ConfigError

Z = NormalDist().inv_cdf(0.95)


def view(number: int, successes: list[bool]) -> TrialView:
    trial = make_trial(number)
    episodes = make_episodes(number, len(successes), 0.5)
    episodes = [replace(e, success=s) for e, s in zip(episodes, successes, strict=True)]
    result = make_result(episodes)
    return TrialView(trial, make_vitals(trial, 1.5), tuple(episodes), result, 0, 0, 0)


@pytest.mark.parametrize("pairs", [Pairs(44, 2, 12), Pairs(60, 0, 5), Pairs(200, 9, 4)])
def test_the_score_uses_the_likeliest_chances_that_differ_by_the_margin(pairs):
    """Tango's definition, with the likelihood maximised on a grid."""
    margin = 0.07
    agree = pairs.episodes - pairs.wins - pairs.losses

    def likelihood(chance: float) -> float:
        won = pairs.wins * math.log(chance)
        lost = pairs.losses * math.log(chance + margin)
        return won + lost + agree * math.log(1 - 2 * chance - margin)

    chance = max((1e-9 + i * 1e-5 for i in range(40_000)), key=likelihood)
    variance = pairs.episodes * (2 * chance + margin * (1 - margin))
    excess = pairs.losses - pairs.wins - pairs.episodes * margin
    assert score(pairs, margin) == pytest.approx(excess / math.sqrt(variance), rel=1e-3)


def test_the_bound_is_where_the_score_is_that_many_errors_below():
    pairs = Pairs(44, wins=2, losses=12)
    assert pairs.loss == pytest.approx(10 / 44)
    assert score(pairs, loss_below(pairs, Z)) == pytest.approx(-Z)


def test_the_score_at_no_difference_is_mcnemars():
    assert score(Pairs(60, wins=3, losses=11), 1e-12) == pytest.approx(8 / math.sqrt(14))


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize(("episodes", "wins"), [(60, 0.02), (100, 0.05), (150, 0.1)])
def test_a_trial_at_the_margin_passes_in_about_one_of_twenty(episodes, wins):
    """Exact, by enumeration of all discordant pairs."""
    margin, passing = 0.05, 0.0
    losses = wins + margin
    for discordant in range(episodes + 1):
        weight = binomial(episodes, discordant, wins + losses)
        if weight < 1e-12:
            continue
        passing += weight * sum(
            binomial(discordant, k, losses / (wins + losses))
            for k in range(discordant + 1)
            if score(Pairs(episodes, discordant - k, k), margin) <= -Z
        )
    assert 0.02 <= passing <= 0.07


@pytest.mark.parametrize("wins", [0.0, 0.02, 0.1])
def test_no_bet_wins_on_average_where_a_trial_loses_the_margin(wins):
    """Exact: the mean over an episode's three outcomes is 1, and above it where it loses less."""

    def mean(losses: float) -> float:
        outcomes = ((Pairs(1, 1, 0), wins), (Pairs(1, 0, 1), losses))
        tie = 1 - wins - losses
        money = sum(chance * math.exp(log_evidence(pair, 0.05)) for pair, chance in outcomes)
        return money + tie * math.exp(log_evidence(Pairs(1, 0, 0), 0.05))

    assert mean(wins + 0.05) == pytest.approx(1.0)
    assert mean(wins + 0.06) < 1.0
    assert mean(wins + 0.04) > 1.0


def test_evidence_is_the_mean_over_bets_of_what_each_episode_brings():
    pairs, margin = Pairs(30, wins=2, losses=3), 0.05
    each = [-1.0] * 2 + [1.0] * 3 + [0.0] * 25
    money = [math.prod(1 + bet * (margin - loss) for loss in each) for bet in BETS]
    assert log_evidence(pairs, margin) == pytest.approx(math.log(sum(money) / len(BETS)))


def test_the_bound_is_the_margin_that_the_evidence_speaks_against():
    pairs = Pairs(200, wins=4, losses=7)
    bound = loss_bound(pairs, 20.0)
    assert log_evidence(pairs, bound) == pytest.approx(math.log(20.0))
    assert bound > loss_below(pairs, Z)  # to look again and again is not free
    assert loss_bound(Pairs(3, 0, 0), 20.0) == pytest.approx(1.0)
    assert loss_bound(Pairs(0, 0, 0), 20.0) == pytest.approx(1.0)


def test_as_many_episodes_as_needed_are_enough_and_one_less_is_not():
    needed = episodes_needed(Pairs(12, 0, 0), 0.05, 20.0)
    assert needed is not None
    assert log_evidence(Pairs(needed, 0, 0), 0.05) >= math.log(20.0)
    assert log_evidence(Pairs(needed - 1, 0, 0), 0.05) < math.log(20.0)


def test_nothing_is_needed_of_a_trial_that_loses_more_than_the_margin():
    assert episodes_needed(Pairs(60, wins=0, losses=11), 0.05, 20.0) is None
    assert episodes_needed(Pairs(0, 0, 0), 0.05, 20.0) is None


GOOD, LESS = [True] * 150, [True] * 90 + [False] * 60


def test_the_fastest_that_passes_is_named_and_a_faster_one_that_may_pass():
    reference = view(0, GOOD)
    found = verdict(
        [(reference, 4.0), (view(1, GOOD), 3.0), (view(2, GOOD[:20]), 2.0), (view(3, LESS), 1.0)],
        reference,
    )
    assert (found.trial, found.loss, found.episodes, found.tested) == (1, 0.0, 150, 3)
    assert found.loss_high is not None
    assert 0 < found.loss_high <= 0.05
    assert found.next_trial == 2
    assert found.episodes_needed is not None
    assert 20 < found.episodes_needed <= 150


def test_with_few_episodes_there_is_none_yet():
    reference = view(0, GOOD[:12])
    found = verdict([(reference, 4.0), (view(1, GOOD[:12]), 3.0)], reference)
    assert (found.trial, found.loss, found.next_trial) == (None, None, 1)
    assert found.episodes_needed == episodes_needed(Pairs(12, 0, 0), 0.05, 20.0)


def test_more_tested_trials_need_more_episodes():
    reference = view(0, GOOD)
    few = verdict([(reference, 4.0), (view(1, GOOD[:20]), 3.0)], reference)
    many = verdict(
        [(reference, 9.0), *((view(n, GOOD[:20]), float(n)) for n in range(1, 6))], reference
    )
    assert many.tested == 5
    assert (many.episodes_needed or 0) > (few.episodes_needed or 0)
    chosen = verdict([(reference, 4.0), (view(1, GOOD[:20]), 3.0)], reference, trials=5)
    assert chosen.episodes_needed == many.episodes_needed  # of five, it was chosen


def test_nothing_faster_than_the_reference_means_nothing_to_test():
    reference = view(0, GOOD)
    found = verdict([(reference, 1.0), (view(1, GOOD), 3.0)], reference)
    assert (found.tested, found.trial, found.next_trial) == (0, None, None)


def test_front_json_has_the_verdict_of_the_front_on_paired_episodes(tmp_path):
    folder = tmp_path / "s"
    for number, name, speedup, rate in (
        (0, "reference", 1.0, 1.1),
        (1, None, 2.0, 1.1),
        (2, None, 4.0, 0.3),
    ):
        trial = make_trial(number, name=name)
        episodes = make_episodes(number, 150, rate)
        write_trial(folder, trial, make_vitals(trial, speedup), episodes, make_result(episodes))
    ensure_reference(folder, read_trials(folder))
    written = compute_front(folder, OBJECTIVES).to_json()["verdict"]
    assert (written["reference_trial"], written["trial"], written["margin"]) == (0, 1, 0.05)
    assert written["next_trial"] is None  # trial 2 loses far more
    strict = compute_front(folder, OBJECTIVES, margin=0.001)
    assert strict.verdict is not None
    assert strict.verdict.trial is None
    assert Front.from_json(strict.to_json()) == strict


def test_a_sweep_without_the_unquantized_policy_has_no_verdict(tmp_path):
    trial, episodes = make_trial(0), make_episodes(0, 12, 0.9)
    write_trial(tmp_path, trial, make_vitals(trial, 1.5), episodes, make_result(episodes))
    assert compute_front(tmp_path, OBJECTIVES).verdict is None


@pytest.mark.parametrize("margin", ["0", "1", "-0.1"])
def test_a_margin_that_is_no_share_is_refused(margin, tmp_path):
    with pytest.raises(
        ConfigError, match=f"verdict.margin is a share between 0 and 1, got {margin}"
    ):
        compose(["+sweep=smoke", f"dir={tmp_path}", f"verdict.margin={margin}"])
