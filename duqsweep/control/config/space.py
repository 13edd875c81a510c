"""The search space: which settings a trial may have, and the trial that given settings make."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from duqsweep.checkpoint.distilled import check_steps
from duqsweep.codec import encode
from duqsweep.control.config.grammar import Domain, FloatRange
from duqsweep.control.config.parameters import (
    Parameter,
    Params,
    include_values,
    parameters_of,
    plan_params,
)
from duqsweep.control.config.possible import check_points
from duqsweep.control.config.regexes import check_regexes
from duqsweep.control.config.settings import INCLUDE, Base, did_you_mean
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.objectives import Objective
from duqsweep.errors import ConfigError
from duqsweep.fingerprint import digest, fingerprint
from duqsweep.quant.select import select_layers
from duqsweep.setting import Scalar
from duqsweep.spec import Trial, TrialSpec

GRID_LIMIT = 100_000  # points that a grid may have


@dataclass(frozen=True)
class ProposedTrial:
    """A trial that a study proposes to evaluate."""

    number: int
    params: Params
    name: str | None  # of the plan that it is


@dataclass(frozen=True)
class Space:
    """A checked search space. Knows nothing of Optuna."""

    base: Base
    parameters: tuple[Parameter, ...]  # each after those that its condition depends on
    plans: Mapping[str, Params]  # enqueued ones, in order
    objectives: tuple[Objective, ...]

    @classmethod
    def from_config(cls, config: SweepConfig) -> Space:
        """The space of a sweep, with every choice resolved against the policy's layers.

        Raises:
            ConfigError: A key cannot be searched, a value or condition is impossible, a regex
                matches no layer, or a block does not divide a layer's width.
        """
        check_regexes(_regexes(config), config.base.layers)
        space = cls(
            base=config.base,
            parameters=parameters_of(config),
            plans={name: plan_params(name, config.plans[name]) for name in config.enqueue},
            objectives=config.objectives,
        )
        space.check()
        return space

    def identity(self) -> dict[str, Any]:
        """Everything that two halves of one sweep must share, as plain JSON data."""
        return {
            "space": {p.key: [type(p.domain).__name__, encode(p.domain)] for p in self.parameters},
            "when": {p.key: encode(p.condition) for p in self.parameters if p.condition},
            "base": dict(self.base.settings),
            "policy": encode(self.base.policy),
            "runtime": encode(self.base.runtime),
            "suite": encode(self.base.suite),
            "rules": [encode(rule) for rule in self.base.rules],
            "includes": {name: list(regexes) for name, regexes in self.base.includes.items()},
            "objectives": [objective.name for objective in self.objectives],
        }

    @property
    def hash(self) -> str:
        """Digest of `identity`."""
        return digest(self.identity())

    def draw(self, choose: Callable[[Parameter], Scalar]) -> Params:
        """One point: `choose` is called for each parameter whose condition holds, in order."""
        settings = dict(self.base.settings)
        params: Params = {}
        for parameter in self.parameters:
            if parameter.condition is None or parameter.condition.holds(settings):
                params[parameter.key] = settings[parameter.key] = choose(parameter)
        return params

    def spec(self, params: Mapping[str, Scalar]) -> TrialSpec:
        """The base with these settings; raises SpecError on an impossible value."""
        return self.base.spec(params)

    def bits(self, spec: TrialSpec) -> dict[str, tuple[int, int]]:
        """The layers that `spec` quantizes → weight bits, activation bits."""
        return select_layers(spec.quant, self.base.layers)

    def trial(self, number: int, params: Params, name: str | None = None) -> Trial:
        """The content of a trial's spec.json."""
        spec = self.spec(params)
        return Trial(number, name, dict(params), fingerprint(spec, self.bits(spec)), spec)

    def point_of(self, plan: str) -> Params | None:
        """The point of the space that a plan is; None where it lies outside."""
        wanted = self.plans[plan]
        settings = {**self.base.settings, **wanted}
        outside = []

        def take(parameter: Parameter) -> Scalar:
            value = settings.get(parameter.key)
            if value is None or value not in parameter.domain:
                outside.append(parameter.key)
            return value  # type: ignore[return-value]  # a None is never returned to a caller

        point = self.draw(take)
        base = self.base.settings
        outside += [key for key in wanted if key not in point and wanted[key] != base.get(key)]
        return None if outside else point

    def point_of_trial(self, trial: Trial) -> Params | None:
        """The point of the space that a trial is; None for a plan outside of it."""
        if trial.name is None:
            return dict(trial.params)
        return self.point_of(trial.name) if trial.name in self.plans else None

    def random_point(self, rng: random.Random) -> Params:
        """A point drawn uniformly, parameter by parameter."""
        return self.draw(lambda parameter: random_value(parameter.domain, rng))

    def points(self) -> Iterator[Params]:
        """Every point of a finite space, once."""
        yield from self._points((), {})

    def _points(self, done: tuple[str, ...], params: Params) -> Iterator[Params]:
        settings = {**self.base.settings, **params}
        for parameter in self.parameters[len(done) :]:
            done = (*done, parameter.key)
            if parameter.condition is None or parameter.condition.holds(settings):
                for value in _values(parameter.domain):
                    yield from self._points(done, {**params, parameter.key: value})
                return
        yield params

    def size(self) -> int | None:
        """How many points there are; None: infinitely many, or more than `GRID_LIMIT`."""
        if any(isinstance(p.domain, FloatRange) for p in self.parameters):
            return None
        count = sum(1 for _ in itertools.islice(self.points(), GRID_LIMIT + 1))
        return None if count > GRID_LIMIT else count

    def check(self) -> None:
        """Raise ConfigError unless base, plans and every point can be evaluated."""
        self._check_one("the sweep's base configuration", {})
        for name, plan in self.plans.items():
            self._check_one(f"plan {name}", plan)
        check_points(self.parameters, self.draw, partial(self._check_one, "space"))

    def _check_one(self, where: str, params: Mapping[str, Scalar], whole: bool = True) -> None:
        """Resolve one point; not `whole`: only the types and bounds of its values."""
        try:
            spec = self.spec(params)
            self._check_host(spec)
            if whole:
                self.bits(spec)
        except ConfigError as error:
            shown = ", ".join(f"{key}={value}" for key, value in params.items())
            include = {**self.base.settings, **params}[INCLUDE]
            names = "" if include in self.base.includes else self._named_rules(str(include))
            place = f"{where} ({shown})" if shown else where
            raise ConfigError(f"{place}: {error}{names}") from error

    def _check_host(self, spec: TrialSpec) -> None:
        """What depends on the policy and on the job that a trial runs in."""
        check_steps(spec.policy, self.base.distilled_steps)
        horizon, replan = self.base.horizon, spec.suite.replan_steps
        if replan > horizon:
            raise ConfigError(
                f"suite.replan_steps must not exceed the policy's horizon of {horizon} actions, "
                f"got {replan}"
            )
        if spec.runtime.threads > self.base.cores:
            raise ConfigError(
                f"runtime.threads must not exceed the {self.base.cores} cores that a job has, got "
                f"{spec.runtime.threads}"
            )

    def _named_rules(self, include: str) -> str:
        hint = did_you_mean(include, self.base.includes)
        return f"; {INCLUDE} takes a regex or one of {', '.join(self.base.includes)}{hint}"


def _values(domain: Domain) -> Sequence[Scalar]:
    if isinstance(domain, FloatRange):
        raise ConfigError("a space with an interval of floats has infinitely many points")
    return domain.values


def random_value(domain: Domain, rng: random.Random) -> Scalar:
    """A value drawn uniformly, by its logarithm where the domain says so."""
    if isinstance(domain, FloatRange):
        if domain.log:
            return math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
        return rng.uniform(domain.low, domain.high)
    return rng.choice(domain.values)


def _regexes(config: SweepConfig) -> list[str]:
    """Every regex that some trial may be selected by."""
    base = config.base
    given = [*include_values(config), str(base.settings[INCLUDE])]
    given += [str(config.plans[name].get(INCLUDE)) for name in config.enqueue]
    named = [regex for name in given for regex in base.includes.get(name, (name,))]
    return [*(rule.include for rule in base.rules), *named]
