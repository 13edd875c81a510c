"""The prior of times: a cost model helps where it is right, and does not hurt where it is wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.front.measures import MEASURES
from duqsweep.control.kghv.costs import CostSurrogate, Modelled, learn_cost_model
from duqsweep.control.kghv.encoding import Encoding, Floats
from duqsweep.control.kghv.surrogate import Surrogate
from duqsweep.control.study.modelled_costs import ModelledCosts

UNSEEN = 100


@pytest.fixture(scope="module")
def space() -> Space:
    return Space.from_config(compose(["+sweep=dit_speed"]))


def log_times(space: Space, points: Sequence[Params]) -> Floats:
    """A machine whose times follow the model up to a factor, an overhead and noise."""
    modelled = np.exp(ModelledCosts(space, [MEASURES["episode_time_s"]])(points)[:, 0])
    overhead = 0.2 * modelled.mean()
    noise = 0.02 * np.random.default_rng(1).standard_normal(len(points))
    return np.log(3e-9 * (modelled + overhead)) + noise


def unrelated(points: Sequence[Params]) -> Floats:
    """A cost model that knows nothing of the machine."""
    rows = [random.Random(str(sorted(point.items()))).gauss(0, 0.6) for point in points]
    return np.array(rows)[:, None]


@pytest.fixture(scope="module")
def models(space) -> dict[str, Surrogate | None]:
    encoding = Encoding(space.parameters)

    def learnt(model: Modelled) -> Surrogate | None:
        return learn_cost_model(encoding, space.random_point, model, 1)[0]

    right = ModelledCosts(space, [MEASURES["episode_time_s"]])
    return {"none": None, "right": learnt(right), "wrong": learnt(unrelated)}


def error(space: Space, model: Surrogate | None, seed: int, measured: int) -> float:
    """Root mean square error of predicted logarithms at unseen points."""
    rng = random.Random(seed)
    points = [space.random_point(rng) for _ in range(measured + UNSEEN)]
    encoding = Encoding(space.parameters)
    x, y = encoding.encode(points), log_times(space, points)
    surrogate = CostSurrogate(encoding.columns, noise=0.02)
    surrogate.modelled = model
    surrogate.fit(x[:measured], y[:measured], steps=20)
    found, _ = surrogate.predict(x[measured:])
    return float(np.sqrt(np.mean((found - y[measured:]) ** 2)))


def test_a_right_cost_model_halves_the_error_and_a_wrong_one_hardly_hurts(space, models):
    """Over 4, 8 and 16 measured trials."""
    mean = {
        kind: np.mean([error(space, model, seed, n) for n in (4, 8, 16) for seed in range(4)])
        for kind, model in models.items()
    }
    assert mean["right"] < 0.5 * mean["none"]
    assert mean["wrong"] < 1.15 * mean["none"]


def test_more_steps_and_calls_are_modelled_as_more_time(space):
    names = ("episode_time_s", "call_ms", "weights_mb", "action_error")
    costs = ModelledCosts(space, [MEASURES[name] for name in names])
    point = space.random_point(random.Random(0)) | {"policy.num_steps": 2, "suite.replan_steps": 5}
    more = costs([point | {"policy.num_steps": 8}])[0] - costs([point])[0]
    assert more[0] == pytest.approx(more[1])
    assert more[0] > 0.4
    assert more[2] == 0
    assert math.isnan(more[3])
    fewer_calls = costs([point | {"suite.replan_steps": 10}])[0] - costs([point])[0]
    assert fewer_calls[0] < -0.5
    assert fewer_calls[1] == 0


def test_an_impossible_point_has_no_modelled_cost(space):
    costs = ModelledCosts(space, [MEASURES["weights_mb"]])
    possible = space.random_point(random.Random(0))
    found = costs([possible, possible | {"quant.block_size": 48}])
    assert np.isfinite(found[:, 0]).tolist() == [True, False]


def test_a_cost_without_a_model_is_learnt_from_trials_alone(space):
    encoding = Encoding(space.parameters)
    modelled = ModelledCosts(space, [MEASURES["action_error"], MEASURES["weights_mb"]])
    found = learn_cost_model(encoding, space.random_point, modelled, 2)
    assert found[0] is None
    assert found[1] is not None


def measured(space: Space, noise: float) -> tuple[np.ndarray, np.ndarray, CostSurrogate]:
    """40 trials: true logarithms of their times, what was measured, and the model of it."""
    rng = random.Random(11)
    points = [space.random_point(rng) for _ in range(40)]
    encoding = Encoding(space.parameters)
    x, true = encoding.encode(points), log_times(space, points)
    seen = true + noise * np.random.default_rng(3).standard_normal(len(true))
    surrogate = CostSurrogate(encoding.columns, noise=0.02)
    surrogate.fit(x, seen, steps=20)
    return true, surrogate.believed(x, seen), surrogate


def test_a_clock_that_is_nearly_exact_is_believed(space):
    true, believed, surrogate = measured(space, 0.003)
    assert math.sqrt(surrogate.process.common_noise) < 0.02
    assert np.abs(believed - true).max() < 0.03


def test_the_noise_of_a_clock_is_learnt_and_taken_out(space):
    true, believed, surrogate = measured(space, 0.10)
    assert 0.06 < math.sqrt(surrogate.process.common_noise) < 0.14
    assert np.sqrt(np.mean((believed - true) ** 2)) < 0.075


def test_a_cost_that_is_measured_exactly_stays_as_measured(space):
    encoding = Encoding(space.parameters)
    x = encoding.encode([space.random_point(random.Random(i)) for i in range(6)])
    seen = np.linspace(0.0, 1.0, 6)
    surrogate = CostSurrogate(encoding.columns)
    surrogate.fit(x, seen, steps=20)
    assert (surrogate.believed(x, seen) == seen).all()
