"""Reads the space of a configuration: its parameters, with values and conditions that fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from duqsweep.control.config.grammar import (
    Choice,
    Condition,
    Domain,
    FloatRange,
    IntRange,
    parse_condition,
    parse_domain,
)
from duqsweep.control.config.settings import (
    INCLUDE,
    LAYERS,
    Base,
    check_settable,
    check_value,
    did_you_mean,
    stacks,
)
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.errors import ConfigError
from duqsweep.setting import Scalar, Setting

Params = dict[str, Scalar]


@dataclass(frozen=True)
class Parameter:
    """One setting that is searched."""

    key: str
    domain: Domain
    condition: Condition | None = None  # where it does not hold, the base's value is taken


def parameters_of(config: SweepConfig) -> tuple[Parameter, ...]:
    """The parameters of a sweep's space, each behind those that its condition looks at.

    Raises:
        ConfigError: A key cannot be searched, or a value or condition has the wrong form or type.
    """
    domains = _domains(config)
    return _ordered(domains, _conditions(config.when, domains, config.base), config.base)


def _domains(config: SweepConfig) -> dict[str, Domain]:
    domains: dict[str, Domain] = {}
    for key, value in config.space.items():
        declared = check_settable(key, "space")
        domain = _fitting(key, declared, parse_domain(key, value), value)
        if key == f"{LAYERS}*":
            domains |= {f"{LAYERS}{i}": domain for i in range(_depth(config))}
        else:
            domains[key] = domain
    return domains


def _fitting(key: str, declared: Setting, domain: Domain, text: Any) -> Domain:
    """The domain with values of the setting's own type, each of them allowed."""
    kind = declared.kind
    if kind is float:
        domain = _as_floats(domain)
    if isinstance(domain, FloatRange) and (kind is not float or declared.allowed):
        hint = f"write int({text}) for whole numbers" if kind is int else "it takes a choice(…)"
        raise ConfigError(f"space key {key} is {kind.__name__}, and {text!r} gives floats: {hint}")
    for value in _values_to_check(declared, domain):
        try:
            check_value(declared, key, value)
        except ConfigError as error:
            raise ConfigError(f"space key {error} in {text!r}") from error
    return domain


def _values_to_check(declared: Setting, domain: Domain) -> Iterable[Scalar]:
    """Values of which one is refused if any value of the domain is."""
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain, FloatRange):
        return (domain.low, domain.high)
    # A bound refuses an end; of more values than are allowed, one is refused.
    return (*domain.values[: len(declared.allowed) + 1], domain.low, domain.high)


def _as_floats(domain: Domain) -> Domain:
    if isinstance(domain, IntRange):
        return Choice(tuple(float(value) for value in domain.values))
    if isinstance(domain, Choice):
        return Choice(tuple(float(v) if type(v) is int else v for v in domain.values))
    return domain


def include_values(config: SweepConfig) -> list[str]:
    """What points of the space may have as quant.include: named rules and regexes."""
    if INCLUDE not in config.space:
        return [str(config.base.settings[INCLUDE])]
    domain = parse_domain(INCLUDE, config.space[INCLUDE])
    return [str(value) for value in domain.values] if isinstance(domain, Choice) else []


def _depth(config: SweepConfig) -> int:
    """Layers of the deepest stack that some value of quant.include reaches."""
    base = config.base
    regexes = [r for name in include_values(config) for r in base.includes.get(name, (name,))]
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
        declared = check_settable(condition.key, f"when.{pattern}")
        for value in condition.values:
            try:
                check_value(declared, condition.key, value)
            except ConfigError as error:
                raise ConfigError(f"when.{pattern}: {error}") from error
        if condition.key not in {**base.settings, **domains}:
            raise ConfigError(f"when.{pattern}: {condition.key} has no value in this sweep")
        conditions |= {key: condition for key in keys}
    return conditions


def _ordered(
    domains: Mapping[str, Domain], conditions: Mapping[str, Condition], base: Base
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
    for parameter in ordered.values():
        _check_may_hold(parameter, domains, base)
    return tuple(ordered.values())


def _check_may_hold(parameter: Parameter, domains: Mapping[str, Domain], base: Base) -> None:
    """Raise ConfigError for a condition that no point of the space fulfils."""
    condition = parameter.condition
    domain = domains.get(condition.key) if condition else None
    if condition is None or isinstance(domain, FloatRange):
        return
    values = (base.settings.get(condition.key),) if domain is None else domain.values
    if not any(condition.holds({condition.key: value}) for value in values):
        shown = ", ".join(map(str, values[:8]))
        raise ConfigError(
            f"when.{parameter.key}: its condition can never be true: {condition.key} is "
            f"{'one of ' if len(values) > 1 else ''}{shown}"
        )


def plan_params(name: str, plan: Mapping[str, Any]) -> Params:
    """The settings of a plan; raises ConfigError for a key or value that a trial cannot have."""
    params: Params = {}
    for key, given in plan.items():
        declared = check_settable(key, f"plan {name}")
        value = float(given) if declared.kind is float and type(given) is int else given
        try:
            check_value(declared, key, value)
        except ConfigError as error:
            is_domain = re.match(r"(choice|range|interval|int|tag)\(", str(given))
            hint = "; a plan has one value, a choice belongs in the space" if is_domain else ""
            raise ConfigError(f"plan {name}: {error}{hint}") from error
        params[key] = value
    return params
