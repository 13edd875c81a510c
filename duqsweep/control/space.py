"""The search space: which settings a trial may have, and the trial that given settings make."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from duqsweep.codec import encode
from duqsweep.control.config import SweepConfig
from duqsweep.control.grammar import (
    Choice,
    Condition,
    Domain,
    FloatRange,
    IntRange,
    Scalar,
    parse_condition,
    parse_domain,
)
from duqsweep.control.settings import INCLUDE, LAYERS, Base, check_settable, did_you_mean, stacks
from duqsweep.errors import ConfigError
from duqsweep.quant.select import select_layers
from duqsweep.spec import Trial, TrialSpec, digest, fingerprint

Params = dict[str, Scalar]

GRID_LIMIT = 100_000  # points that a grid may have
CHECK_LIMIT = 500  # points that are resolved before a sweep starts
# Settings that decide together which layers are quantized and whether blocks and groups fit them.
_INTERACTING = (
    INCLUDE,
    "quant.weight_bits.default",
    "quant.act_bits",
    "quant.rotation",
    "quant.permutation",
    "quant.row_rotation",
    "quant.block_size",
    "quant.weight_group_size",
)


@dataclass(frozen=True)
class Asked:
    """A trial that a study wants evaluated."""

    number: int
    params: Params
    name: str | None  # of the plan that it is


@dataclass(frozen=True)
class Parameter:
    """One setting that is searched."""

    key: str
    domain: Domain
    condition: Condition | None = None  # where it does not hold, the base's value is taken


@dataclass(frozen=True)
class Space:
    """A checked search space. Knows nothing of Optuna."""

    base: Base
    parameters: tuple[Parameter, ...]  # each after those that its condition depends on
    plans: Mapping[str, Params]  # enqueued ones, in order
    objectives: tuple[tuple[str, str], ...]  # name and direction

    @classmethod
    def from_config(cls, config: SweepConfig) -> Space:
        """The space of a sweep, with every choice resolved against the policy's layers.

        Raises:
            ConfigError: A key cannot be searched, a value or condition is impossible, a regex
                matches no layer, or a block does not divide a layer's width.
        """
        domains = _domains(config)
        conditions = _conditions(config.when, domains, config.base)
        space = cls(
            base=config.base,
            parameters=_ordered(domains, conditions),
            plans={name: _plan(name, config.plans[name]) for name in config.enqueue},
            objectives=tuple((o.name, o.direction) for o in config.objectives),
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
            "suite": encode(self.base.protocol),
            "rules": [encode(rule) for rule in self.base.rules],
            "includes": {name: list(regexes) for name, regexes in self.base.includes.items()},
            "objectives": [name for name, _ in self.objectives],
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

    def random_point(self, rng: random.Random) -> Params:
        """A point drawn uniformly, parameter by parameter."""
        return self.draw(lambda parameter: _random_value(parameter.domain, rng))

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
        """Raise ConfigError unless base, plans and the values of every parameter can be evaluated.

        Values that depend on each other are tried in all combinations (a seeded sample of them,
        where there are more than `CHECK_LIMIT`), all others one by one.
        """
        self._check_one("the sweep's base configuration", {})
        for name, plan in self.plans.items():
            self._check_one(f"plan {name}", plan)
        for parameter in self.parameters:
            for value in _extremes(parameter.domain):
                self._check_one("space", {parameter.key: value}, whole=False)
        together = [p for p in self.parameters if p.key in _INTERACTING]
        combinations = list(
            itertools.islice(itertools.product(*(_extremes(p.domain) for p in together)), 100_000)
        )
        if len(combinations) > CHECK_LIMIT:
            combinations = random.Random(0).sample(combinations, CHECK_LIMIT)
        for combination in combinations:
            chosen = {p.key: value for p, value in zip(together, combination, strict=True)}
            self._check_one("space", self.draw(partial(_chosen_or_first, chosen)))

    def _check_one(self, where: str, params: Mapping[str, Scalar], whole: bool = True) -> None:
        """Resolve one point; not `whole`: only the types and bounds of its values."""
        try:
            spec = self.spec(params)
            if whole:
                self.bits(spec)
        except ConfigError as error:
            shown = ", ".join(f"{key}={value}" for key, value in params.items())
            include = {**self.base.settings, **params}[INCLUDE]
            names = "" if include in self.base.includes else self._named_rules(str(include))
            place = f"{where} ({shown})" if shown else where
            raise ConfigError(f"{place}: {error}{names}") from error

    def _named_rules(self, include: str) -> str:
        hint = did_you_mean(include, self.base.includes)
        return f"; {INCLUDE} takes a regex or one of {', '.join(self.base.includes)}{hint}"


def _domains(config: SweepConfig) -> dict[str, Domain]:
    domains: dict[str, Domain] = {}
    for key, value in config.space.items():
        kind = check_settable(key, "space")
        domain = _fitting(key, kind, parse_domain(key, value), value)
        if key == f"{LAYERS}*":
            domains |= {f"{LAYERS}{i}": domain for i in range(_depth(config))}
        else:
            domains[key] = domain
    return domains


def _fitting(key: str, kind: type, domain: Domain, text: Any) -> Domain:
    """The domain with values of the key's own type."""
    if kind is float:
        return _as_floats(domain)
    if isinstance(domain, FloatRange):
        hint = f"write int({text}) for whole numbers" if kind is int else "it takes a choice(…)"
        raise ConfigError(f"space key {key} is {kind.__name__}, and {text!r} gives floats: {hint}")
    values = domain.values if isinstance(domain, Choice) else (domain.low,)
    for value in values:
        if type(value) is not kind:
            raise ConfigError(f"space key {key} must be {kind.__name__}, got {value!r} in {text!r}")
    return domain


def _as_floats(domain: Domain) -> Domain:
    if isinstance(domain, IntRange):
        return Choice(tuple(float(value) for value in domain.values))
    if isinstance(domain, Choice):
        return Choice(tuple(float(v) if type(v) is int else v for v in domain.values))
    return domain


def _depth(config: SweepConfig) -> int:
    """Layers of the deepest stack that some value of quant.include reaches."""
    base = config.base
    domain = parse_domain(INCLUDE, config.space.get(INCLUDE, str(base.settings[INCLUDE])))
    names = [str(value) for value in domain.values] if isinstance(domain, Choice) else []
    regexes = [regex for name in names for regex in base.includes.get(name, (name,))]
    regexes += [rule.include for rule in base.rules]
    depths = stacks(base.layers, regexes).values()
    if not depths:
        raise ConfigError(f"space key {LAYERS}*: {INCLUDE} reaches no layer")
    return max(depths)


def _conditions(
    when: Mapping[str, str], domains: Mapping[str, Domain], base: Base
) -> dict[str, Condition]:
    conditions: dict[str, Condition] = {}
    for pattern, text in when.items():
        condition = parse_condition(pattern, text)
        keys = [pattern] if pattern in domains else []
        if pattern == f"{LAYERS}*":
            keys = [key for key in domains if key.startswith(LAYERS)]
        if not keys:
            hint = did_you_mean(pattern, domains)
            raise ConfigError(f"when.{pattern}: the space has no such key{hint}")
        kind = check_settable(condition.key, f"when.{pattern}")
        if condition.key not in {**base.settings, **domains}:
            raise ConfigError(f"when.{pattern}: {condition.key} has no value in this sweep")
        for value in condition.values:
            if type(value) is not kind:
                allowed = f"{condition.key} is {kind.__name__}"
                raise ConfigError(f"when.{pattern}: {allowed}, got {value!r}")
        conditions |= {key: condition for key in keys}
    return conditions


def _ordered(
    domains: Mapping[str, Domain], conditions: Mapping[str, Condition]
) -> tuple[Parameter, ...]:
    """Parameters in the order of the file, each moved behind what its condition looks at."""
    ordered: dict[str, Parameter] = {}
    waiting = list(domains)
    while waiting:
        ready = [k for k in waiting if k not in conditions or conditions[k].key not in waiting]
        if not ready:
            raise ConfigError(f"when: the conditions of {', '.join(waiting)} depend on each other")
        for key in ready:
            ordered[key] = Parameter(key, domains[key], conditions.get(key))
        waiting = [key for key in waiting if key not in ordered]
    return tuple(ordered.values())


def _plan(name: str, plan: Mapping[str, Any]) -> Params:
    params: Params = {}
    for key, given in plan.items():
        kind = check_settable(key, f"plan {name}")
        params[key] = float(given) if kind is float and type(given) is int else given
        if type(params[key]) is not kind:
            raise ConfigError(f"plan {name}: {key} must be {kind.__name__}, got {given!r}")
    return params


def _chosen_or_first(chosen: Mapping[str, Scalar], parameter: Parameter) -> Scalar:
    return chosen.get(parameter.key, _extremes(parameter.domain)[0])


def _values(domain: Domain) -> tuple[Scalar, ...]:
    if isinstance(domain, FloatRange):
        raise ConfigError("a space with an interval of floats has infinitely many points")
    return domain.values


def _random_value(domain: Domain, rng: random.Random) -> Scalar:
    if isinstance(domain, FloatRange):
        if domain.log:
            return math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
        return rng.uniform(domain.low, domain.high)
    return rng.choice(domain.values)


def _extremes(domain: Domain) -> tuple[Scalar, ...]:
    """Values that show whether all are possible."""
    return domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
