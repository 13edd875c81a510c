"""The sampler `kghv` for Optuna alone: a `BaseSampler` that reads counts from user attributes."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from duqsweep.control.config.grammar import Choice, Domain, FloatRange, IntRange
from duqsweep.control.config.parameters import Parameter, Params
from duqsweep.control.kghv.chooser import Chooser, Prices, Region
from duqsweep.control.kghv.known import Known

EPISODES, SUCCESSES = "episodes", "successes"  # user attributes that every trial is given
SLACK = 1.5  # times the worst known cost: the corner of the hypervolume
FLOOR = 0.5  # success rates below this share of the best one count for nothing

_Key = tuple[tuple[str, Any], ...]


@dataclass
class _Point:
    """All trials of one point: each has played some episodes of its own."""

    params: Params
    successes: int = 0
    episodes: int = 0
    pending: int = 0
    has_failed: bool = False
    costs: list[tuple[float, ...]] = field(default_factory=list)


class KghvSampler(BaseSampler):
    """Shares episodes out where they gain the most hypervolume.

    One objective of the study is a success rate, to be maximised; the others are known once a point
    was tried (time, memory, …), positive, and are minimised or maximised. Every trial plays one
    batch of episodes and gets their number and the successes among them as user attributes before
    it ends: `trial.set_user_attr("episodes", 20)`, `trial.set_user_attr("successes", 17)`. A trial
    with the parameters of earlier ones is more episodes of the same point; `played` says where they
    continue. What the study says of a point is the sum over its trials.
    """

    def __init__(
        self,
        batch: int = 20,
        search_space: Mapping[str, BaseDistribution] | None = None,
        *,
        success: int = 0,
        n_startup_trials: int = 10,
        least_success: float = 0.0,
        start_episodes: float = 0.0,
        seed: int | None = None,
    ) -> None:
        """Nothing is known yet.

        Args:
            batch: Episodes that a trial plays.
            search_space: Of the study; None: what all ended trials have in common.
            success: Place of the success rate among the objectives.
            n_startup_trials: Random ones first.
            least_success: Lower success rates count for nothing; 0: half of the best.
            start_episodes: What starting a new point costs, in episodes.
            seed: The same one makes the same proposals for the same study; None: a random one.
        """
        if batch < 1 or n_startup_trials < 1 or start_episodes < 0 or not 0 <= least_success < 1:
            raise ValueError(
                "batch and n_startup_trials start at 1, start_episodes at 0, and least_success is "
                f"from 0 to below 1; got {batch}, {n_startup_trials}, {start_episodes} and "
                f"{least_success}"
            )
        self._batch, self._place, self._startup = batch, success, n_startup_trials
        self._least, self._start = least_success, start_episodes
        self._space = None if search_space is None else dict(search_space)
        self._common = IntersectionSearchSpace()
        self._seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        self._random = RandomSampler(seed=self._seed)
        self._choosers: dict[tuple[Any, ...], Chooser] = {}  # of the space: mostly one

    def reseed_rng(self) -> None:
        """See `BaseSampler`."""
        self._seed = random.SystemRandom().getrandbits(32)
        self._random.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See `BaseSampler`."""
        space = self._common.calculate(study) if self._space is None else self._space
        return {name: domain for name, domain in space.items() if not domain.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `BaseSampler`; the point of an earlier trial where that gains more than a new one.

        Raises:
            ValueError: The study has no success rate to maximise, or a trial lacks its counts.
        """
        directions = self._checked(study)
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        ended = [t for t in trials if t.state.is_finished()]
        if not search_space or len(ended) < self._startup:
            return {}
        points = self._points(trials, search_space, directions)
        known = [self._known(i, point) for i, point in enumerate(points.values())]
        if all(one.costs is None for one in known):
            return {}
        choice = self._chooser(search_space, len(directions) - 1).choose(
            known,
            self._region(known),
            Prices(lambda costs: np.ones(len(costs)), self._start),
            lambda params: _key(params) in points,
            random.Random(f"{self._seed}/{trial.number}"),
        )
        if choice is None:
            return {}
        if choice.params is not None:
            return choice.params
        assert choice.number is not None
        return list(points.values())[choice.number].params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See `BaseSampler`."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def played(self, trial: Trial) -> int:
        """Episodes of this trial's point that earlier trials have played: where it continues."""
        return sum(
            _count(other, EPISODES)
            for other in trial.study.get_trials(deepcopy=False)
            if other.number < trial.number
            and other.state == TrialState.COMPLETE
            and other.params == trial.params
        )

    def _checked(self, study: Study) -> list[StudyDirection]:
        directions = study.directions
        if not 0 <= self._place < len(directions) or len(directions) < 2:
            raise ValueError(
                "KghvSampler trades a success rate against at least one more objective; the study "
                f"has {len(directions)} objectives, and the success rate is number {self._place}"
            )
        if directions[self._place] != StudyDirection.MAXIMIZE:
            raise ValueError(f"objective {self._place}, the success rate, must be maximised")
        return directions

    def _chooser(self, space: Mapping[str, BaseDistribution], costs: int) -> Chooser:
        key = (*((name, repr(domain)) for name, domain in sorted(space.items())), costs)
        if key not in self._choosers:
            parameters = [Parameter(name, _domain(domain)) for name, domain in space.items()]
            self._choosers[key] = Chooser(
                parameters,
                lambda choose: {p.key: choose(p) for p in parameters},
                costs=[0.0] * costs,
                batch=self._batch,
            )
        return self._choosers[key]

    def _points(
        self,
        trials: Sequence[FrozenTrial],
        space: Mapping[str, BaseDistribution],
        directions: Sequence[StudyDirection],
    ) -> dict[_Key, _Point]:
        points: dict[_Key, _Point] = {}
        for trial in trials:
            if not space.keys() <= trial.params.keys():
                continue
            params = {name: trial.params[name] for name in space}
            point = points.setdefault(_key(params), _Point(params))
            if trial.state == TrialState.COMPLETE:
                point.successes += _count(trial, SUCCESSES)
                point.episodes += _count(trial, EPISODES)
                point.costs.append(self._costs(trial, directions))
            elif trial.state == TrialState.RUNNING:
                point.pending += self._batch
            elif trial.state == TrialState.FAIL:
                point.has_failed = True
        return points

    def _costs(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> tuple[float, ...]:
        """Logarithms of all objectives but the success rate, to be minimised."""
        found = []
        for place, (value, direction) in enumerate(zip(trial.values, directions, strict=True)):
            if place == self._place:
                continue
            if value <= 0:
                raise ValueError(
                    f"objective {place} of trial {trial.number} must be above 0, got {value}"
                )
            sign = -1 if direction == StudyDirection.MAXIMIZE else 1
            found.append(sign * math.log(value))
        return tuple(found)

    def _known(self, number: int, point: _Point) -> Known:
        costs = None if not point.costs else tuple(np.median(point.costs, axis=0).tolist())
        return Known(
            number=number,
            params=point.params,
            successes=0 if point.has_failed else point.successes,
            episodes=point.episodes,
            costs=costs,
            pending=point.pending,
            is_done=point.has_failed,
            has_failed=point.has_failed,
        )

    def _region(self, known: Sequence[Known]) -> Region:
        costs = np.array([one.costs for one in known if one.costs is not None])
        corner = costs.max(axis=0) + math.log(SLACK)
        rates = [one.successes / one.episodes for one in known if one.episodes]
        floor = self._least or FLOOR * max(rates, default=0.0)
        return Region(tuple(corner.tolist()), floor)


def _count(trial: FrozenTrial, name: str) -> int:
    value = trial.user_attrs.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(
            f"trial {trial.number} needs the user attribute {name!r}, a whole number, before it "
            f"ends; got {value!r}"
        )
    return value


def _key(params: Mapping[str, Any]) -> _Key:
    return tuple(sorted(params.items()))


def _domain(distribution: BaseDistribution) -> Domain:
    if isinstance(distribution, CategoricalDistribution):
        choices = tuple(choice for choice in distribution.choices if choice is not None)
        if len(choices) < len(distribution.choices):
            raise ValueError(f"a choice of KghvSampler may not be None, got {distribution.choices}")
        return Choice(choices)
    if isinstance(distribution, IntDistribution):
        return IntRange(distribution.low, distribution.high, distribution.step, distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return FloatRange(distribution.low, distribution.high, distribution.log)
