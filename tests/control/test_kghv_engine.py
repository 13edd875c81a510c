"""The engine of sampler `kghv` against slow references, by enumeration and by Monte Carlo."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from duqsweep.control.config.grammar import parse_condition, parse_domain
from duqsweep.control.config.parameters import Parameter
from duqsweep.control.config.space import random_value
from duqsweep.control.front.pareto import hypervolume, on_front
from duqsweep.control.kghv.acquisition import Staircase, gain_of_known, gain_of_new
from duqsweep.control.kghv.angles import angle, angle_noise, rate
from duqsweep.control.kghv.chooser import Chooser, Prices, Region
from duqsweep.control.kghv.encoding import Encoding
from duqsweep.control.kghv.known import Known
from duqsweep.control.kghv.posterior import Posterior
from duqsweep.control.kghv.surrogate import JITTER, Kernel, Levels, Surrogate

BITS = "quant.weight_bits.layers."


def parameter(key: str, domain: str, when: str | None = None) -> Parameter:
    return Parameter(key, parse_domain(key, domain), when and parse_condition(key, when))


SPACE = (
    parameter("quant.rotation", "choice(hadamard, none, random)"),
    parameter("quant.block_size", "choice(16, 32, 64)", "quant.rotation != none"),
    parameter("policy.num_steps", "int(interval(1, 10))"),
    parameter("quant.smooth", "tag(log, interval(0.01, 1.0))"),
    parameter(f"{BITS}0", "choice(4, 8)"),
    parameter(f"{BITS}1", "choice(4, 8)"),
)
POINTS = [
    {
        "quant.rotation": word,
        **({} if word == "none" else {"quant.block_size": block}),
        "policy.num_steps": steps,
        "quant.smooth": smooth,
        f"{BITS}0": 4,
        f"{BITS}1": bits,
    }
    for word, block, steps, smooth, bits in [
        ("hadamard", 16, 1, 0.01, 4),
        ("hadamard", 64, 1, 0.01, 4),
        ("none", 0, 10, 0.1, 8),
        ("random", 32, 4, 1.0, 8),
        ("random", 32, 5, 1.0, 4),
    ]
]


def draw(choose):
    point = {}
    for one in SPACE:
        if one.condition is None or one.condition.holds(point):
            point[one.key] = choose(one)
    return point


def distance(a: int, b: int, key: str) -> float:
    """Squared distance of one parameter between two of `POINTS`."""
    encoding = Encoding(SPACE)
    column = next(column for column in encoding.columns if column.key == key)
    x = encoding.encode(POINTS)[:, column.span]
    return float(((x[a] - x[b]) ** 2).sum())


def test_numbers_lie_on_a_scale_and_words_are_equally_far_apart():
    assert distance(0, 3, "quant.rotation") == pytest.approx(1.0)
    assert distance(0, 1, "policy.num_steps") == 0.0
    assert distance(0, 2, "policy.num_steps") == pytest.approx(1.0)
    assert distance(0, 2, "quant.smooth") == pytest.approx(0.25)  # half of the way in logarithms
    assert distance(0, 1, "quant.block_size") == pytest.approx(1.0)
    assert distance(0, 3, "quant.block_size") == pytest.approx(0.25)  # 16 to 64 by logarithm


def test_a_parameter_whose_condition_does_not_hold_is_far_from_each_of_its_values():
    assert all(distance(2, other, "quant.block_size") >= 0.5 for other in (0, 1, 3, 4))


def test_the_kernel_is_built_from_the_space_and_layers_share_a_length_scale():
    kernel = Kernel(Encoding(SPACE).columns, 0.2)
    assert len(kernel.columns) == 7
    assert kernel.groups[-2:] == (f"{BITS}*", f"{BITS}* shares")
    assert len(kernel.groups) == 6


def slow_covariance(kernel: Kernel, theta, a, b) -> float:
    """One element of the kernel, as its docstring defines it."""
    parts = []
    for column in kernel.columns:
        length = math.exp(theta[kernel.groups.index(column.group)])
        squared = ((a[column.span] - b[column.span]) ** 2).sum()
        parts.append(math.exp(-0.5 * squared / length**2))
    sizes = Counter(column.group for column in kernel.columns)
    weights = [1 / len(sizes) / sizes[column.group] for column in kernel.columns]
    main = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    pairs, pair_weights = 0.0, 0.0
    for i, j in itertools.combinations(range(len(parts)), 2):
        pairs += weights[i] * weights[j] * parts[i] * parts[j]
        pair_weights += weights[i] * weights[j]
    v1, v2, v3 = np.exp(theta[-3:])
    return kernel.offset + v1 * main + v2 * pairs / pair_weights + v3 * math.prod(parts)


@pytest.fixture
def setting():
    kernel = Kernel(Encoding(SPACE).columns, 0.2)
    theta = kernel.start() + np.linspace(-0.5, 0.5, len(kernel.start()))
    return kernel, theta, Encoding(SPACE).encode(POINTS)


def test_the_kernel_equals_its_definition(setting):
    kernel, theta, x = setting
    expected = [[slow_covariance(kernel, theta, a, b) for b in x[1:]] for a in x]
    np.testing.assert_allclose(kernel(theta, x, x[1:]), expected, rtol=1e-12)
    np.testing.assert_allclose(np.diag(kernel(theta, x, x)), kernel.diagonal(theta), rtol=1e-12)
    covariances, _slopes = kernel.of_levels(theta, kernel.levels(x))
    np.testing.assert_allclose(covariances, kernel(theta, x, x), rtol=1e-12)


def test_a_parameter_of_many_values_counts_as_one_of_few_does(setting, monkeypatch):
    kernel, theta, x = setting
    expected = kernel(theta, x, x[1:])
    assert not Levels(kernel.columns, x).left_out
    monkeypatch.setattr("duqsweep.control.kghv.surrogate.Levels.__init__.__defaults__", (1,))
    assert Levels(kernel.columns, x).left_out
    np.testing.assert_allclose(kernel(theta, x, x[1:]), expected, rtol=1e-12)


def test_the_gradient_of_the_fit_equals_differences(setting):
    kernel, theta, x = setting
    surrogate = Surrogate(kernel, 0.8)
    y, noise = np.array([0.1, 0.2, -0.3, 0.1, 0.0]), np.full(5, 0.01)

    def loss(at):
        return surrogate._loss(at, kernel.levels(x), y, noise)

    found = loss(theta)[1]
    steps = 1e-5 * np.eye(len(theta))
    expected = [(loss(theta + step)[0] - loss(theta - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_posterior_is_that_of_conditioned_normals_with_known_noise(setting):
    kernel, theta, x = setting
    surrogate = Surrogate(kernel, 0.8)
    surrogate.theta = theta
    y, noise = np.array([1.1, 1.2, 0.7]), np.array([0.002, 0.3, 0.01])
    surrogate.fit(x[:3], y, noise, steps=0)
    every = np.array([[slow_covariance(kernel, theta, a, b) for b in x] for a in x])
    gain = every[:, :3] @ np.linalg.inv(every[:3, :3] + np.diag(noise + JITTER))
    mean, variance = surrogate.predict(x)
    np.testing.assert_allclose(mean, 0.8 + gain @ (y - 0.8), rtol=1e-9)
    np.testing.assert_allclose(variance, np.diag(every - gain @ every[:3]), rtol=1e-7)
    np.testing.assert_allclose(surrogate.at_observed(), surrogate.predict(x[:3]), rtol=1e-9)


def test_fitting_raises_the_likelihood_and_less_noise_moves_the_mean_further(setting):
    kernel, _theta, x = setting
    surrogate = Surrogate(kernel, 0.8)
    y = np.array([1.4, 1.4, 0.5, 1.0, 1.1])
    noise = np.array([0.01, 0.01, 0.01, 0.5, 0.01])

    def loss(at):
        return surrogate._loss(at, kernel.levels(x), y - 0.8, noise)[0]

    before = loss(kernel.start())
    surrogate.fit(x, y, noise, steps=20)
    assert loss(surrogate.theta) < before
    far = abs(surrogate.at_observed()[0][3] - y[3])
    surrogate.observe(y, np.full(5, 0.01))
    assert abs(surrogate.at_observed()[0][3] - y[3]) < far


def test_points_that_are_added_or_replaced_later_make_no_difference(setting):
    kernel, _theta, x = setting
    y, noise = np.array([1.1, 1.2, 0.7, 1.0, 0.9]), np.full(5, 0.01)
    grown = Surrogate(kernel, 0.8)
    for rows in ([0, 1], [0, 1, 2, 3], [0, 1, 4], [3, 1, 4, 0, 2]):
        grown.fit(x[rows], y[rows], noise[rows], steps=0)
        fresh = Surrogate(kernel, 0.8)
        fresh.fit(x[rows], y[rows], noise[rows], steps=0)
        np.testing.assert_allclose(grown.predict(x), fresh.predict(x), rtol=1e-12)


def test_the_noise_of_an_angle_is_that_of_a_binomial():
    successes = np.random.default_rng(0).binomial(40, 0.8, size=20_000)
    angles = angle(successes, np.full(20_000, 40))
    assert angles.var() == pytest.approx(float(angle_noise(40)), rel=0.05)
    assert float(rate(angles.mean())) == pytest.approx(0.8, abs=0.005)


RATES = np.array([0.95, 0.8, 0.9, 0.6, 0.7])
COSTS = np.array([[1.0, 0.5], [0.2, 0.7], [0.6, 0.2], [0.1, 0.1], [1.9, 1.8]])


def staircase(dimensions: int) -> Staircase:
    return Staircase(RATES, COSTS[:, :dimensions], np.full(dimensions, 1.5), 0.5)


def volume(rates, costs) -> float:
    rows = [(r, *c) for r, c in zip(rates, costs, strict=True)]
    ways = ("maximize", *["minimize"] * len(costs[0]))
    return hypervolume(rows, (0.5, *[1.5] * len(costs[0])), ways)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_volume_under_the_staircase_is_the_hypervolume(dimensions):
    found = staircase(dimensions).volume()
    assert found == pytest.approx(volume(RATES, COSTS[:, :dimensions]), rel=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("mean", [0.55, 0.75, 0.97])
def test_the_gain_of_a_new_point_is_the_expected_hypervolume_that_it_adds(dimensions, mean):
    costs, sd = np.array([0.4, 0.3])[:dimensions], 0.06
    stairs, known = staircase(dimensions), COSTS[:, :dimensions]
    before = volume(RATES, known)
    draws = mean + sd * np.linspace(-5, 5, 2001)
    density = np.exp(-0.5 * np.linspace(-5, 5, 2001) ** 2)
    gains = [
        volume([*RATES, at], [*known, costs]) - before if at > 0.5 else 0.0 for at in draws[::10]
    ]
    expected = np.average(gains, weights=density[::10])
    found = gain_of_new(mean, sd, stairs.heights, stairs.volumes(costs))
    assert found == pytest.approx(expected, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("index", range(5))
def test_the_gain_of_a_known_point_is_the_value_of_choosing_its_boxes_later(index):
    """Box by box: take the point or the rest of the staircase, after the episodes or before."""
    stairs, sd = staircase(1), 0.05
    others = np.delete(np.arange(5), index)
    rest = Staircase(RATES[others], COSTS[others, :1], np.array([1.5]), 0.5)
    mean, cost = RATES[index], COSTS[index, 0]
    noise = np.random.default_rng(1).standard_normal(4000) * sd
    expected = 0.0
    edges = np.unique([*COSTS[COSTS[:, 0] < 1.5, 0], 1.5])
    for low, high in itertools.pairwise(edges):
        if low < cost:
            continue
        height = max([0.5, *RATES[others][COSTS[others, 0] <= low]])
        later = np.maximum(mean + noise, height).mean()
        expected += (high - low) * (later - max(mean + noise.mean(), height))
    found = gain_of_known(mean, sd, stairs.without(index), stairs.volumes(COSTS[index, :1]))
    assert found == pytest.approx(expected, rel=0.1, abs=1e-4)
    assert rest.volume() <= stairs.volume() + 1e-12


REGION = Region((math.log(10.0),), 0.3)
PRICES = Prices(lambda costs: np.full(len(costs), 10.0), 60.0)


def known_trials(count: int, seed: int = 3) -> list[Known]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        point = draw(lambda one: random_value(one.domain, rng))
        good = point[f"{BITS}0"] == 8
        cost = math.log(float(point["policy.num_steps"]) * (1.5 if good else 1.0))
        found.append(Known(number, point, 19 if good else 12, 20, (cost,)))
    return found


def choose(known, chooser=None, seed=0, **changed):
    chooser = chooser or Chooser(SPACE, draw, costs=[0.0], batch=20)
    return chooser.choose(known, REGION, PRICES, lambda _: False, random.Random(seed), **changed)


def test_the_same_state_gives_the_same_decision():
    assert choose(known_trials(12)) == choose(known_trials(12))


def test_hyperparameters_that_were_saved_make_a_new_chooser_decide_the_same():
    first = Chooser(SPACE, draw, costs=[0.0], batch=20)
    for count in (6, 9, 12):
        choose(known_trials(count), first)
    second = Chooser(SPACE, draw, costs=[0.0], batch=20)
    second.hyperparameters = first.hyperparameters
    assert choose(known_trials(13), second) == choose(known_trials(13), first)


def test_it_resumes_what_is_undecided_and_leaves_what_is_pending_done_or_too_slow():
    known = [
        Known(0, POINTS[0], 380, 400, (0.5,)),
        Known(1, POINTS[3], 7, 8, (0.1,)),
        Known(2, POINTS[4], 19, 20, (0.1,), pending=20),
        Known(3, POINTS[2], 20, 20, (0.0,), is_done=True),
        Known(4, POINTS[1], 0, 0, (5.0,)),
    ]
    chosen = choose(known, may_start=False)
    assert chosen is not None
    assert chosen.number == 1
    assert chosen.params is None


def test_a_point_of_the_front_gets_its_share_of_the_episodes_first():
    chooser = Chooser(SPACE, draw, costs=[0.0], batch=4)
    known = [Known(0, POINTS[0], 380, 400, (1.0,)), Known(1, POINTS[3], 4, 4, (0.5,))]
    chosen = choose(known, chooser)
    assert chosen is not None
    assert (chosen.number, chosen.gain) == (1, math.inf)


def test_trials_below_the_least_success_get_no_more_episodes():
    known = [
        Known(0, None, 380, 400, (1.0,)),
        Known(1, None, 10, 20, (0.1,)),
        Known(2, None, 18, 20, (0.5,)),
    ]
    chooser = Chooser((), lambda choose: {}, costs=[0.0], batch=20)
    region = Region(REGION.corner, 0.9)
    chosen = chooser.choose(known, region, PRICES, lambda _: False, random.Random(0))
    assert chosen is not None
    assert chosen.number == 2


def test_a_plan_outside_the_space_says_nothing_of_the_points_in_it():
    chooser = Chooser(SPACE, draw, costs=[0.0], batch=20)
    inside = known_trials(6)
    before = chooser.posterior(inside).means
    found = chooser.posterior([*inside, Known(6, None, 0, 400, (1.0,))])
    with_plan, sd = found.means, found.sds
    np.testing.assert_allclose(with_plan[:6], before)
    assert with_plan[6] < 0.02
    assert sd[6] < 0.02


def test_a_trial_that_failed_says_nothing_of_the_success_of_others():
    chooser = Chooser(SPACE, draw, costs=[0.0], batch=20)
    inside = known_trials(6)
    before = chooser.posterior(inside)
    broken = Known(6, POINTS[3], 0, 0, (1.0,), is_done=True, has_failed=True)
    found = Chooser(SPACE, draw, costs=[0.0], batch=20).posterior([*inside, broken])
    np.testing.assert_allclose(found.means[:6], before.means)
    assert found.means[6] < 0.001
    assert found.sds[6] < 0.001


def test_new_points_are_sound_unless_points_like_them_failed():
    def trials(fails: bool) -> list[Known]:
        return [
            replace(trial, has_failed=True, is_done=True, successes=0)
            if fails and trial.params[f"{BITS}0"] == 8
            else trial
            for trial in known_trials(20)
        ]

    chooser = Chooser(SPACE, draw, costs=[0.0], batch=20)
    assert (chooser.new_points(trials(False), random.Random(0)).sound == 1.0).all()
    new = chooser.new_points(trials(True), random.Random(0))
    alike = np.array([point[f"{BITS}0"] == 8 for point in new.points])
    assert new.sound[alike].mean() < 0.6 * new.sound[~alike].mean()
    assert new.sound[~alike].mean() > 0.5
    assert (new.sound >= 0.05).all()
    assert (new.sound <= 1.0).all()


def test_a_space_whose_trials_all_failed_is_still_searched():
    known = [
        replace(t, has_failed=True, is_done=True, successes=0, episodes=0) for t in known_trials(3)
    ]
    chosen = choose(known)
    assert chosen is not None
    assert chosen.params is not None


def test_a_trial_that_is_not_measured_yet_has_predicted_costs():
    known = known_trials(8)
    waiting = Known(8, POINTS[3], 0, 0, None, pending=20)
    chosen = choose([*known, waiting])
    assert chosen is not None
    assert chosen.number != 8


def test_without_a_space_it_shares_episodes_among_the_plans():
    chooser = Chooser((), lambda choose: {}, costs=[0.0], batch=10)
    known = [
        Known(0, None, 95, 100, (1.0,)),
        Known(1, None, 18, 20, (0.2,)),
        Known(2, None, 1, 20, (0.1,)),
    ]
    chosen = choose(known, chooser)
    assert chosen is not None
    assert chosen.number == 1


def test_it_learns_that_two_settings_hurt_only_together():
    """Attention costs 3 points, AdaRMS 19, both 72; with a third setting it is 38 (measured)."""
    space = tuple(parameter(f"quant.{name}", "choice(true, false)") for name in "abc")
    table = {"": 87, "a": 84, "b": 68, "ab": 15, "c": 60, "ac": 55, "bc": 50, "abc": 49}
    points = {name: {f"quant.{key}": key in name for key in "abc"} for name in table}
    known = [
        Known(i, points[name], 2 * percent, 200, (0.0,))
        for i, (name, percent) in enumerate(table.items())
    ]
    chooser = Chooser(space, lambda take: {p.key: take(p) for p in space}, costs=[0.0], batch=20)
    means = chooser.posterior(known).means
    np.testing.assert_allclose(100 * means, list(table.values()), atol=5)


def test_covariances_of_the_posterior_are_those_of_the_formula(setting):
    kernel, theta, x = setting
    surrogate = Surrogate(kernel, 0.9)
    surrogate.theta = theta
    noise = np.array([0.01, 0.02, 0.03, 0.02, 0.01])
    surrogate.fit(x, np.linspace(0.8, 1.2, 5), noise, steps=0)
    prior = kernel(theta, x, x)
    inverse = np.linalg.inv(prior + np.diag(noise + JITTER))
    found = surrogate.covariance_at_observed()
    np.testing.assert_allclose(found, prior - prior @ inverse @ prior, atol=1e-9)
    np.testing.assert_allclose(np.diag(found), surrogate.at_observed()[1], atol=1e-9)


def two_rates(correlation: float) -> Posterior:
    """A fast trial at 80 % and a slow one at 84 %, in angles about 0.05 ± 0.05 apart."""
    angles = np.arcsin(np.sqrt([0.80, 0.84]))
    sd = 0.05
    covariances = sd**2 * np.array([[1.0, correlation], [correlation, 1.0]])
    return Posterior(angles, covariances, np.array([[0.0], [0.7]]))


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_slower_trial_is_on_the_front_as_often_as_its_rate_is_higher(correlation):
    posterior = two_rates(correlation)
    fast, slow = posterior.front_chances(np.arange(2), posterior.costs, np.zeros(1))
    apart = posterior.angles[1] - posterior.angles[0]
    assert fast == 1.0
    sure = NormalDist().cdf(apart / (0.05 * math.sqrt(2 - 2 * correlation)))
    assert slow == pytest.approx(sure, abs=0.03)


def test_noise_of_the_clock_makes_neighbours_uncertain():
    costs = np.array([[0.0], [0.01]])
    posterior = Posterior(np.array([1.1, 1.1]), 1e-8 * np.eye(2), costs)
    exact = posterior.front_chances(np.arange(2), costs, np.zeros(1))
    noisy = posterior.front_chances(np.arange(2), costs, np.array([0.02]))
    assert exact[0] == 1.0
    assert 0.5 < noisy[0] < 0.95


def test_rates_of_the_posterior_are_the_means_and_deviations_of_its_draws():
    posterior = two_rates(0.5)
    assert posterior.draws.mean(axis=0) == pytest.approx(posterior.means, abs=0.005)
    assert posterior.draws.std(axis=0) == pytest.approx(posterior.sds, rel=0.06)


def test_trials_that_are_surely_beaten_are_left_out_of_the_draws_and_nothing_changes():
    rng = np.random.default_rng(4)
    angles, costs = rng.uniform(0.6, 1.4, 40), rng.uniform(0.0, 2.0, (40, 1))
    posterior = Posterior(angles, 0.03**2 * np.eye(40), costs)
    noise = np.array([0.02])
    hopeless = posterior._hopeless(np.arange(40), costs, noise)
    assert 10 < hopeless.sum() < 40
    found = posterior.front_chances(np.arange(40), costs, noise)
    drawn = costs + noise * np.random.default_rng(9).standard_normal((4000, 40, 1))
    rates = rate(angles + 0.03 * np.random.default_rng(8).standard_normal((4000, 40)))
    expected = on_front(np.concatenate([-rates[:, :, None], drawn], axis=-1)).mean(axis=0)
    assert found == pytest.approx(expected, abs=0.045)
    assert not expected[hopeless].any()


def layer_points(count: int) -> tuple[list[Parameter], list[dict[str, int]]]:
    """Points over twelve layers, and the parameters; the last three are new to no layer's value."""
    space = [parameter(f"{BITS}{i}", "choice(4, 8, 16)") for i in range(12)]
    rng = random.Random(5)
    return space, [{p.key: rng.choice((4, 8, 16)) for p in space} for _ in range(count)]


def test_shares_of_a_group_say_how_many_layers_have_each_value():
    space, points = layer_points(1)
    four, eight = ({p.key: bits for p in space} for bits in (4, 8))
    half = {p.key: 4 if i % 2 else 8 for i, p in enumerate(space)}
    other_half = {p.key: 8 if i % 2 else 4 for i, p in enumerate(space)}
    encoding = Encoding(space)
    x = encoding.encode([four, eight, half, other_half, *points])[:, encoding.columns[-1].span]
    assert ((x[0] - x[1]) ** 2).sum() == pytest.approx(1.0)
    assert ((x[0] - x[2]) ** 2).sum() == pytest.approx(0.25)
    assert (x[2] == x[3]).all()
    assert len(Encoding(space[:1]).columns) == 1  # a layer alone is no group


def test_a_few_points_say_what_bits_cost_in_layers_that_hardly_took_part():
    """The process learns a sum over layers from the shares sooner than layer by layer."""
    space, points = layer_points(60)
    encoding = Encoding(space)
    x = encoding.encode(points)
    y = np.array([sum(value == 4 for value in point.values()) / 12 for point in points])
    errors = []
    for columns in (encoding.columns, encoding.columns[:-1]):
        surrogate = Surrogate(Kernel(columns, 0.2), 0.0)
        surrogate.fit(x[:10], y[:10], np.full(10, 1e-4), steps=20)
        errors.append(np.abs(surrogate.predict(x[10:])[0] - y[10:]).mean())
    assert errors[0] < 0.4 * errors[1]


def test_hyperparameters_of_an_earlier_version_are_fitted_anew():
    kept = Chooser(SPACE, draw, costs=[0.0], batch=20)
    new = Chooser(SPACE, draw, costs=[0.02], batch=20)  # one more: the noise of the clock
    before = new.hyperparameters
    new.hyperparameters = [[7.0, 7.0], *kept.hyperparameters[1:]]
    assert new.hyperparameters == before
