"""The methods that are compared."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from duqsweep.control.config.grammar import Choice, IntRange
from duqsweep.control.config.parameters import Parameter, Params
from duqsweep.control.front.measures import EPISODE_TIME_S
from duqsweep.control.front.pareto import Candidate, non_dominated, p_front
from duqsweep.control.kghv.chooser import Chooser, Prices, Region
from duqsweep.control.kghv.common_episodes import counts_by_block
from duqsweep.control.kghv.known import Known
from search.simulation import (
    FLOOR,
    SIMULATOR_S,
    START_S,
    MakeMethod,
    Trial,
    random_point,
)
from search.truths import Truth

STARTUP_TRIALS = 5  # as `sampler.startup_trials` of a sweep: start points, then random ones


class KGHV:
    """duqsweep's own: batches of episodes where they gain the most hypervolume per second."""

    def __init__(self, truth: Truth, seed: int, workers: int, batch: int = 20) -> None:
        """Nothing is known yet."""
        self._truth, self._batch = truth, batch
        self._rng = random.Random(f"kghv/{seed}")
        self._starts = [*truth.starts]
        lacking = max(STARTUP_TRIALS - len(self._starts), 0)
        self._starts += [random_point(truth, self._rng) for _ in range(lacking)]
        self._seen: set[str] = set()
        self._chooser = Chooser(
            truth.parameters,
            lambda choose: {p.key: choose(p) for p in truth.parameters},
            costs=[EPISODE_TIME_S.noise],
            batch=batch,
        )
        self._region = Region((truth.corner,), FLOOR)
        self._prices = Prices(lambda costs: np.exp(costs[:, 0]) + SIMULATOR_S, START_S)

    def next(self, trials: Sequence[Trial]) -> tuple[Params | int, int] | None:
        """A start point, or the best choice."""
        while self._starts:
            point = self._starts.pop(0)
            if not self._is_taken(point):
                return self._start(point)
        choice = self._chooser.choose(
            self._known(trials), self._region, self._prices, self._is_taken, self._rng
        )
        if choice is None:
            return None
        if choice.params is not None:
            return self._start(choice.params)
        assert choice.number is not None
        return choice.number, choice.episodes

    def finished(self, trial: Trial) -> None:
        """Everything is in the trials."""

    def recommend(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """What no other dominates by posterior mean, as in front.json."""
        found = self._chooser.posterior(self._known(trials))
        able = [i for i, trial in enumerate(trials) if trial.episodes]
        return _front(
            [trials[i] for i in able],
            found.means[able].tolist(),
            found.costs[able, 0].tolist(),
        )

    def front_chances(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """The trials that may be on the front, with the probability that is stated for it."""
        able = [i for i, trial in enumerate(trials) if trial.successes]
        posterior = self._chooser.posterior(self._known(trials))
        noise = np.array([EPISODE_TIME_S.noise])
        found = posterior.front_chances(np.array(able, np.intp), posterior.costs[able], noise)
        return [(trials[i], float(chance)) for i, chance in zip(able, found, strict=True)]

    def _start(self, point: Params) -> tuple[Params, int]:
        self._seen.add(_key(point))
        return point, self._batch

    def _is_taken(self, point: Params) -> bool:
        return _key(point) in self._seen

    def _known(self, trials: Sequence[Trial]) -> list[Known]:
        return [
            Known(
                number=trial.number,
                params=trial.params,
                successes=trial.successes,
                episodes=trial.episodes,
                costs=(trial.log_time,),
                pending=trial.pending,
                has_failed=trial.crashed,
                is_done=trial.crashed or trial.episodes >= self._truth.states,
                blocks=counts_by_block(list(enumerate(trial.outcomes[: trial.episodes].tolist()))),
            )
            for trial in trials
        ]


class Optuna:
    """An Optuna sampler with a fixed number of episodes per trial."""

    def __init__(self, truth: Truth, seed: int, workers: int, sampler: str, episodes: int) -> None:
        """Start a study."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._truth, self._episodes = truth, episodes
        self._study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=_sampler(sampler, seed, workers)
        )
        for point in truth.starts:
            self._study.enqueue_trial(point)
        self._space = {p.key: _distribution(p) for p in truth.parameters}
        self._asked: dict[int, optuna.Trial] = {}
        self._values: dict[str, list[float]] = {}
        self._waiting: dict[str, list[optuna.Trial]] = {}

    def next(self, trials: Sequence[Trial]) -> tuple[Params | int, int] | None:
        """The next point that was not evaluated; repeated proposals get the known values."""
        for _ in range(50):
            asked = self._study.ask(self._space)
            key = _key(asked.params)
            if key in self._values:
                self._study.tell(asked, self._values[key])
            elif key in self._waiting:
                self._waiting[key].append(asked)
            else:
                self._waiting[key] = [asked]
                return dict(asked.params), self._episodes
        return None

    def finished(self, trial: Trial) -> None:
        """Tell it; a crash has success 0."""
        rate = trial.successes / trial.episodes if trial.episodes else 0.0
        key = _key(trial.params)
        self._values[key] = [0.0 if trial.crashed else rate, trial.log_time]
        for asked in self._waiting.pop(key):
            self._study.tell(asked, self._values[key])

    def recommend(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """`best_trials`: what no other dominates by its raw values."""
        done = [trial for trial in trials if trial.episodes and not trial.pending]
        rates = [trial.successes / trial.episodes for trial in done]
        return _front(done, rates, [trial.log_time for trial in done])

    def front_chances(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """The same as of `KGHV`, by the bootstrap over episodes."""
        able = [trial for trial in trials if trial.successes and not trial.pending]
        candidates = [
            Candidate(
                dict(enumerate(trial.outcomes[: trial.episodes].tolist())),
                (math.exp(trial.log_time),),
            )
            for trial in able
        ]
        return list(zip(able, p_front(candidates, [EPISODE_TIME_S.noise]), strict=True))


METHODS: Mapping[str, MakeMethod] = {
    "kghv": KGHV,
    "tpe-20": partial(Optuna, sampler="tpe", episodes=20),
    "tpe-100": partial(Optuna, sampler="tpe", episodes=100),
    "tpe-500": partial(Optuna, sampler="tpe", episodes=500),
    "nsga2-100": partial(Optuna, sampler="nsga2", episodes=100),
    "random-100": partial(Optuna, sampler="random", episodes=100),
    "gp-100": partial(Optuna, sampler="gp", episodes=100),
}


def _front(
    trials: Sequence[Trial], rates: Sequence[float], log_times: Sequence[float]
) -> list[tuple[Trial, float]]:
    if not trials:
        return []
    pairs = list(zip(rates, log_times, strict=True))
    flags = non_dominated(pairs, ("maximize", "minimize"))
    shown = zip(trials, rates, flags, strict=True)
    return [(trial, rate) for trial, rate, on_front in shown if on_front]


def _key(point: Params) -> str:
    return json.dumps(sorted(point.items()))


def _distribution(parameter: Parameter) -> BaseDistribution:
    domain = parameter.domain
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, IntRange):
        return IntDistribution(domain.low, domain.high, domain.log)
    return FloatDistribution(domain.low, domain.high, domain.log)


def _sampler(name: str, seed: int, workers: int) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=workers > 1)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)
