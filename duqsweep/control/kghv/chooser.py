"""What to evaluate next: more episodes of a known trial, or a new point of the space."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.config.parameters import Parameter, Params
from duqsweep.control.config.space import random_value
from duqsweep.control.kghv.acquisition import Staircase, gain_of_known, gain_of_new
from duqsweep.control.kghv.angles import angle_noise, rate, rate_sd
from duqsweep.control.kghv.costs import CostSurrogate, Modelled, learn_cost_model
from duqsweep.control.kghv.known import Known
from duqsweep.control.kghv.posterior import Posterior
from duqsweep.control.kghv.rates import RateModel
from duqsweep.control.kghv.surrogate import Kernel, Surrogate
from duqsweep.setting import Scalar

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Draw = Callable[[Callable[[Parameter], Scalar]], Params]

FRONT_SHARE = 0.02  # of all episodes so far, which each point of the front gets at least
CANDIDATES = 400  # new points that are compared in each decision
_MUTANTS = 0.8  # share of them that vary or cross points of the front; the others are random
_MUTATIONS = (0.0, 1.0, 3.0)  # parameters that are drawn anew in a mutant beside one, on average
_FIT_STEPS = 20
_FIT_EVERY = 1.1  # the hyperparameters are fitted again when there are so many times more trials
_SOUND_OFFSET = 0.01  # prior variance of the share of a space's points that can be evaluated
_SOUND_SCALES = (0.05, 0.03, 0.02)  # of its differences, see `Kernel`
_LEAST_SOUND = 0.05  # no point is given up altogether


@dataclass(frozen=True)
class Choice:
    """A decision: `episodes` more of the trial `number`, or of a new trial with `params`."""

    number: int | None
    params: Params | None
    episodes: int
    gain: float  # expected, in hypervolume per second


@dataclass(frozen=True)
class Region:
    """The part of the objectives' space in which hypervolume counts.

    A cost is the logarithm of a minimised objective, or minus that of a maximised one.
    """

    corner: tuple[float, ...]  # the worst costs that count
    floor: float  # the success rate below which nothing counts


@dataclass(frozen=True)
class Prices:
    """What evaluating takes, in seconds."""

    episode_s: Callable[[Floats], Floats]  # of one episode, from the costs (n, k) → (n,)
    start_s: float  # to start a new trial: load, compile, benchmark


@dataclass(frozen=True)
class NewPoints:
    """Points that are no trials yet, with what is believed of them."""

    points: list[Params]
    angles: Floats  # posterior means of the rates' angles (m,)
    variances: Floats  # of the angles (m,)
    costs: Floats  # predicted (m, k)
    cost_variances: Floats  # of the predictions (m, k)
    sound: Floats  # probability that it can be evaluated (m,)


@dataclass(frozen=True)
class _State:
    """The posterior of all trials at a decision."""

    angles: Floats  # posterior means of the rates' angles (n,)
    variances: Floats  # of the angles (n,)
    costs: Floats  # measured, without the noise of the measures, or predicted (n, k)
    has_costs: Flags  # measured, or predicted from others that were (n,)


class Chooser:
    """Decides by the expected gain in hypervolume per second.

    Hypervolume is of the success rate and of the logarithms of all other objectives. The costs of a
    new point are predicted by one more process per cost from the trials that were benchmarked. A
    trial outside the space stands for itself: it says nothing of other points.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        draw: Draw,
        costs: Sequence[float],
        batch: int,
        modelled: Modelled | None = None,
    ) -> None:
        """Nothing is known yet.

        Args:
            parameters: Of the search space.
            draw: Makes a point: calls its argument for each parameter whose condition holds.
            costs: For each objective beside the success rate, at least one, its relative standard
                deviation between two measures of one point; 0 where it is exact.
            batch: Episodes that one decision assigns.
            modelled: The cost model, whose logarithms are the prior mean of the costs; it is asked
                at the first decision.
        """
        self._parameters, self._draw = tuple(parameters), draw
        self._batch = batch
        self._rates = RateModel(self._parameters)
        self._encoding = self._rates.encoding
        columns = self._encoding.columns
        self._groups = {column.key: column.group for column in columns}
        self._costs = [CostSurrogate(columns, noise) for noise in costs]
        self._modelled = modelled
        self._soundness = Surrogate(Kernel(columns, _SOUND_OFFSET, _SOUND_SCALES), 0.0)
        self._soundness_at = 1.0  # share of the trials that did not fail
        self._fitted_at = [0, 0]  # number of trials when rates and costs were last fitted

    @property
    def hyperparameters(self) -> list[list[float]]:
        """What must survive a restart for the same decisions, as plain JSON data."""
        thetas = [surrogate.theta.tolist() for surrogate in self._fitted]
        return [[float(count) for count in self._fitted_at], *thetas]

    @hyperparameters.setter
    def hyperparameters(self, saved: list[list[float]]) -> None:
        counts, *thetas = saved
        if [len(theta) for theta in thetas] != [len(one.theta) for one in self._fitted]:
            return  # of an earlier version, whose model was another: they are fitted anew
        self._fitted_at = [int(count) for count in counts]
        for surrogate, theta in zip(self._fitted, thetas, strict=True):
            surrogate.theta = np.array(theta)

    @property
    def _fitted(self) -> list[Surrogate]:
        return [self._rates.process, *(cost.process for cost in self._costs)]

    def choose(
        self,
        known: Sequence[Known],
        region: Region,
        prices: Prices,
        taken: Callable[[Params], bool],
        rng: random.Random,
        may_start: bool = True,
    ) -> Choice | None:
        """The best of all known trials and of `CANDIDATES` new points.

        Args:
            known: All trials so far.
            region: Where hypervolume counts.
            prices: What evaluating takes.
            taken: Whether a point needs no trial: it cannot be evaluated, or is one already.
            rng: Draws the candidates; the same state gives the same decision.
            may_start: Whether a new trial may be started.

        Returns:
            None when there is nothing left to evaluate.
        """
        state = self._fit(known)
        means = rate(state.angles)
        thin = self._thinly_known(known, means, state)
        if thin is not None:
            return thin
        played = np.array([t.episodes + t.pending > 0 for t in known], dtype=bool)
        shown = np.flatnonzero(played & state.has_costs)
        corner = np.array(region.corner)
        stairs = Staircase(means[shown], state.costs[shown], corner, region.floor)
        choices = self._more_of(known, state, stairs, shown, corner, prices)
        if may_start and self._parameters:
            choices += self._new(self._parents(known, means, state), stairs, corner, prices, rng)
        for choice in sorted(choices, key=lambda choice: -choice.gain):
            if choice.params is None or not taken(choice.params):
                return choice
        return None

    def posterior(self, known: Sequence[Known]) -> Posterior:
        """What is believed of the success rates of all trials, and of their costs."""
        state = self._fit(known)
        covariances = np.diag(state.variances)
        inside = np.flatnonzero([t.params is not None and not t.has_failed for t in known])
        if len(inside) and self._parameters:
            covariances[np.ix_(inside, inside)] = self._rates.covariances()
        costs = np.where(state.has_costs[:, None], state.costs, np.nan)
        return Posterior(state.angles, covariances, costs)

    def new_points(self, known: Sequence[Known], rng: random.Random) -> NewPoints:
        """`CANDIDATES` points that could be started, with what is believed of them.

        The space must have parameters, and a trial must have been benchmarked.
        """
        state = self._fit(known)
        return self._candidates(self._parents(known, rate(state.angles), state), rng)

    def _fit(self, known: Sequence[Known]) -> _State:
        points = [trial.params for trial in known if trial.params is not None]
        inside = np.array([trial.params is not None for trial in known], dtype=bool)
        x = self._encoding.encode(points)
        self._learn_soundness(known, x)
        costs = np.zeros((len(known), len(self._costs)))
        has_costs = np.array([trial.costs is not None for trial in known], dtype=bool)
        for row, trial in enumerate(known):
            if trial.costs is not None:
                costs[row] = trial.costs
        timed = has_costs[inside]
        if timed.any():
            steps = self._steps(1, int(timed.sum()))
            self._ask_cost_model()
            for k, surrogate in enumerate(self._costs):
                measured = costs[inside, k][timed]
                surrogate.fit(x[timed], measured, steps)
                costs[inside & has_costs, k] = surrogate.believed(x[timed], measured)
            guessed = np.flatnonzero(inside & ~has_costs)
            if len(guessed):
                costs[guessed] = self._predicted_costs(x[~timed])[0]
                has_costs[guessed] = True
        sound = [t for t in known if t.params is not None and not t.has_failed]
        steps = self._steps(0, sum(trial.episodes > 0 for trial in sound))
        angles, variances = self._rates.believe(known, x, costs, has_costs, steps)
        return _State(angles, variances, costs, has_costs)

    def _ask_cost_model(self) -> None:
        """Once, because it takes a while."""
        if self._modelled is not None and self._parameters:
            models = learn_cost_model(
                self._encoding, self._random, self._modelled, len(self._costs)
            )
            for surrogate, model in zip(self._costs, models, strict=True):
                surrogate.modelled = model
            self._modelled = None

    def _learn_soundness(self, known: Sequence[Known], x: Floats) -> None:
        """Which points of the space can be evaluated; its hyperparameters stay at their prior."""
        failed = np.array([t.has_failed for t in known if t.params is not None], dtype=bool)
        self._soundness_at = 1.0
        if failed.any() and self._parameters:
            sound = 1.0 - failed.sum() / (len(failed) + 1)
            self._soundness_at = sound
            noise = np.full(len(failed), sound * (1 - sound))
            self._soundness.fit(x, np.where(failed, 0.0, 1.0) - sound, noise, 0)

    def _sound(self, x: Floats) -> Floats:
        """The probability of encoded points (m, width) to be such that they can be evaluated."""
        if self._soundness_at == 1.0:
            return np.ones(len(x))
        found, _ = self._soundness.predict(x)
        return np.clip(self._soundness_at + found, _LEAST_SOUND, 1.0)

    def _steps(self, which: int, count: int) -> int:
        """How many steps to fit hyperparameters; 0 until there are enough new trials."""
        if count < max(_FIT_EVERY * self._fitted_at[which], 4):
            return 0
        self._fitted_at[which] = count
        return _FIT_STEPS

    def _predicted_costs(self, x: Floats) -> tuple[Floats, Floats]:
        """Posterior means and variances (m, k)."""
        found = [surrogate.predict(x) for surrogate in self._costs]
        means, variances = zip(*found, strict=True)
        return np.stack(means, axis=-1), np.stack(variances, axis=-1)

    def _thinly_known(self, known: Sequence[Known], means: Floats, state: _State) -> Choice | None:
        """The cheapest point of the front that has too few episodes to be recommended."""
        least = FRONT_SHARE * sum(t.episodes for t in known if not t.is_done)
        thin = [
            i
            for i in _front(means, state)
            if 0 < known[i].episodes < least and not (known[i].pending or known[i].is_done)
        ]
        if not thin:
            return None
        first = min(thin, key=lambda i: tuple(state.costs[i]))
        return Choice(known[first].number, None, self._batch, math.inf)

    def _more_of(
        self,
        known: Sequence[Known],
        state: _State,
        stairs: Staircase,
        shown: NDArray[np.intp],
        corner: Floats,
        prices: Prices,
    ) -> list[Choice]:
        sds = self._step_sd(state.angles, state.variances)
        seconds = self._batch * prices.episode_s(state.costs)
        means = rate(state.angles)
        step_of = {int(i): step for step, i in enumerate(shown)}  # trial → its place in `stairs`
        choices = []
        for i, trial in enumerate(known):
            is_out = not state.has_costs[i] or (state.costs[i] >= corner).any()
            if trial.pending or trial.is_done or is_out:
                continue
            volumes = stairs.volumes(state.costs[i])
            if trial.episodes:
                gain = gain_of_known(means[i], sds[i], stairs.without(step_of[i]), volumes)
            else:
                gain = gain_of_new(means[i], sds[i], stairs.heights, volumes)
            choices.append(Choice(trial.number, None, self._batch, gain / seconds[i]))
        return choices

    def _parents(self, known: Sequence[Known], means: Floats, state: _State) -> list[Params]:
        """The points of the space that no other seems to dominate."""
        points = [known[i].params for i in _front(means, state)]
        return [point for point in points if point is not None]

    def _new(
        self,
        parents: Sequence[Params],
        stairs: Staircase,
        corner: Floats,
        prices: Prices,
        rng: random.Random,
    ) -> list[Choice]:
        new = self._candidates(parents, rng)
        sds = self._step_sd(new.angles, new.variances)
        rates = rate(new.angles)
        seconds = prices.start_s + self._batch * new.sound * prices.episode_s(new.costs)
        return [
            Choice(
                None,
                new.points[i],
                self._batch,
                new.sound[i]
                * gain_of_new(rates[i], sds[i], stairs.heights, stairs.volumes(new.costs[i]))
                / seconds[i],
            )
            for i in np.flatnonzero((new.costs < corner).all(axis=1))
        ]

    def _candidates(self, parents: Sequence[Params], rng: random.Random) -> NewPoints:
        points = [self._candidate(parents, rng) for _ in range(CANDIDATES)]
        x = self._encoding.encode(points)
        costs, cost_variances = self._predicted_costs(x)
        rates = self._rates.predict(x, costs)
        return NewPoints(points, *rates, costs, cost_variances, self._sound(x))

    def _step_sd(self, angles: Floats, variances: Floats) -> Floats:
        """Standard deviation of the posterior mean rate after one more batch."""
        noise = angle_noise(self._batch)
        return np.maximum(rate_sd(angles, variances / np.sqrt(variances + noise)), 1e-9)

    def _candidate(self, parents: Sequence[Params], rng: random.Random) -> Params:
        """A child of points of the front, or a random point."""
        if not parents or rng.random() >= _MUTANTS:
            return self._random(rng)
        mother, father = rng.choice(parents), rng.choice(parents)
        crosses = rng.random() < 0.5
        forced = self._parameters[rng.randrange(len(self._parameters))].key
        mutation = rng.choice(_MUTATIONS) / len(self._parameters)

        def take(parameter: Parameter) -> Scalar:
            parent = father if crosses and rng.random() < 0.5 else mother
            is_drawn = parameter.key == forced or rng.random() < mutation
            if is_drawn or parameter.key not in parent:
                return random_value(parameter.domain, rng)
            return parent[parameter.key]

        return self._draw(take)

    def _random(self, rng: random.Random) -> Params:
        """A random point, in which the parameters of a group often agree, as layers should."""
        likeness = rng.random()
        common: dict[str, Scalar] = {}

        def take(parameter: Parameter) -> Scalar:
            value = random_value(parameter.domain, rng)
            group = self._groups[parameter.key]
            shared = common.setdefault(group, value)
            return shared if rng.random() < likeness and shared in parameter.domain else value

        return self._draw(take)


def _front(means: Floats, state: _State) -> list[int]:
    """Trials with costs that no other seems to dominate."""
    able = np.flatnonzero(state.has_costs)
    costs, rates = state.costs[able], means[able]
    better = (costs[:, None] <= costs[None]).all(axis=-1) & (rates[:, None] > rates[None])
    return [int(i) for i in able[~better.any(axis=0)]]
