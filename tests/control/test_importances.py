"""Importances of parameters against functions whose importances are known."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from synthetic_sweep import make_result, make_trial, make_vitals

from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.front.importance import Importance
from duqsweep.control.front.records import Front
from duqsweep.control.kghv.importances import LEVELS, _levels, _shares, importances
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view.headline import importance_line
from duqsweep.result import EpisodeRecord

SPACE = (
    "space.quant.weight_bits.default=choice(2, 3, 4, 8)",
    "space.policy.num_steps=int(interval(1, 10))",
    "space.quant.rotation=choice(hadamard, none)",
    "space.quant.block_size=choice(16, 32)",
    "when.quant.block_size=quant.rotation != none",
)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    words = ["name=i", "quant.include=dit_all", f"dir={tmp_path_factory.mktemp('i')}"]
    return Space.from_config(compose([*words, *SPACE]))


def rate(point) -> float:
    """Bits matter most, steps a little, rotation and block size not at all."""
    by_bits = {2: 0.35, 3: 0.65, 4: 0.85, 8: 0.92}[point["quant.weight_bits.default"]]
    return by_bits - 0.15 * (point["policy.num_steps"] <= 3)


def views(space: Space, trials: int, episodes: int) -> list[TrialView]:
    rng, own = random.Random(1), random.Random(2)
    found = []
    for number in range(trials):
        point = space.random_point(rng)
        trial = space.trial(number, point)
        records: list[EpisodeRecord] = [
            EpisodeRecord(i, "s", i % 6, i, 7, own.random() < rate(point), 9, 2, 0.1, 0.1, 0.2)
            for i in range(episodes)
        ]
        vitals = make_vitals(make_trial(number), 1.0)
        result = make_result(records)
        found.append(TrialView(trial, vitals, tuple(records), result, 0, 0, 0))
    return found


def true_shares(space: Space) -> dict[str, float]:
    rng = random.Random(3)
    points = [space.random_point(rng) for _ in range(4000)]
    rates = np.array([[rate(point) for point in points]])
    return {
        p.key: float(_shares(rates, _levels([point.get(p.key) for point in points]))[0])
        for p in space.parameters
    }


def test_shares_are_found_with_intervals_that_hold_them(space):
    found = importances(space, views(space, 40, 40))
    true = true_shares(space)
    assert [importance.parameter for importance in found][:2] == [
        "quant.weight_bits.default",
        "policy.num_steps",
    ]
    for importance in found:
        assert importance.low - 0.04 <= true[importance.parameter] <= importance.high + 0.04
    assert found[0].share > 0.7
    assert found[-1].share < 0.05


def test_fewer_episodes_leave_wider_intervals(space):
    sure = importances(space, views(space, 40, 40))[0]
    unsure = importances(space, views(space, 12, 6))[0]
    assert unsure.high - unsure.low > 2 * (sure.high - sure.low)


def test_too_few_trials_say_nothing(space):
    assert importances(space, views(space, 7, 40)) == ()


def test_the_share_of_a_parameter_is_its_first_order_index():
    levels = np.repeat([0, 1], 500)
    noise = np.random.default_rng(0).standard_normal(1000)
    noise -= noise.mean()
    rates = np.stack([levels + 0.5 * noise, noise, levels.astype(float)])
    whole, none, all_of_it = _shares(rates, levels)
    assert whole == pytest.approx(0.25 / (0.25 + 0.25), abs=0.03)
    assert none == pytest.approx(0.0, abs=0.01)
    assert all_of_it == pytest.approx(1.0)


def test_many_numbers_are_cut_into_levels_and_a_missing_value_is_one_more():
    found = _levels([*range(60), None])
    assert len(set(found[:-1].tolist())) == LEVELS
    assert found[-1] not in found[:-1]
    assert _levels(["a", "b", None, "a"]).tolist() == [0, 1, 2, 0]


def test_the_line_names_the_largest_first(tmp_path: Path):
    front = Front("s", (), None, None, 0.0, {}, 1)
    assert importance_line(front) is None
    found = Importance("quant.weight_bits.default", 0.71, 0.6, 0.8)
    line = importance_line(Front("s", (), None, None, 0.0, {}, 1, importances=(found,)))
    assert line is not None
    assert line.startswith("Success depends on: w_bits 71 % (60–80 %) of its variance")


def test_episodes_are_those_of_the_trial_itself(space):
    """Outcomes are read, not the success rate of a file: swapped trials swap the answer."""
    ordered = views(space, 40, 40)
    episodes = [view.episodes for view in ordered]
    random.Random(5).shuffle(episodes)
    mixed = [
        TrialView(view.trial, view.vitals, played, make_result(list(played)), 0, 0, 0)
        for view, played in zip(ordered, episodes, strict=True)
    ]
    assert importances(space, mixed)[0].share < importances(space, ordered)[0].share
