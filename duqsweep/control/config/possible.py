"""Whether every point of a space can be evaluated, found without trying them all.

Each rule that refuses a trial declares the few settings that it looks at. So it is enough to try,
for each rule, all combinations of these; the other settings do not matter to it. Whatever is
refused on the way is a point of the space, so nothing is refused wrongly.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from duqsweep.control.config.grammar import Choice, Domain, FloatRange
from duqsweep.control.config.parameters import Parameter, Params
from duqsweep.control.config.settings import ACT_BITS, FIRST_LAST, LAYERS, SELECTION, WEIGHT_BITS
from duqsweep.quant.select import LAYER_RULES
from duqsweep.setting import Rule, Scalar
from duqsweep.spec import DEVICE_RULE, METHOD_RULES

ONE_BY_ONE = 1000  # whole numbers of a range; in a wider one the ends show what the bounds refuse
MOST = 5000  # combinations that are tried for one rule; of more, a seeded sample
_BITS = (WEIGHT_BITS, ACT_BITS, FIRST_LAST, LAYERS)


def _keys(rule: Rule) -> tuple[str, ...]:
    """The keys of the settings that a rule of the quantizer looks at."""
    keys: dict[str, None] = {}
    for name in rule.fields:
        keys |= dict.fromkeys(SELECTION if name == "rules" else (f"quant.{name}",))
    return tuple(keys)


# What each rule looks at; those of layers also at what decides which layers are quantized.
_METHOD_KEYS = tuple(_keys(rule) for rule in METHOD_RULES)
RULES = (
    *_METHOD_KEYS,
    _keys(DEVICE_RULE),
    *((*_keys(rule), *SELECTION) for rule in LAYER_RULES),
)

Try = Callable[[Params, bool], None]  # raises ConfigError; true: with the layers it quantizes


def check_points(
    parameters: Sequence[Parameter],
    draw: Callable[[Callable[[Parameter], Scalar]], Params],
    attempt: Try,
) -> None:
    """Try every value of every parameter, and what depends on each other together.

    Args:
        parameters: Of the space, each behind those that its condition looks at.
        draw: Makes a point from a function that chooses a parameter's value.
        attempt: Tries one point.
    """
    for parameter in parameters:
        # What the method's rules look at may be impossible beside the base's other values only.
        if not any(parameter.key in keys for keys in _METHOD_KEYS):
            for value in values_to_try(parameter.domain):
                attempt({parameter.key: value}, False)
    seen: set[tuple[tuple[str, Scalar], ...]] = set()
    for rule in RULES:
        for chosen in _combinations(parameters, rule):
            point = draw(partial(_chosen_or_first, chosen))
            key = tuple(sorted(point.items()))
            if key not in seen:
                seen.add(key)
                attempt(point, True)


def values_to_try(domain: Domain) -> Sequence[Scalar]:
    """Values of a domain that show whether all its values are possible."""
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain, FloatRange) or len(domain.values) > ONE_BY_ONE:
        return (domain.low, domain.high)
    return domain.values


def _combinations(
    parameters: Sequence[Parameter], rule: Sequence[str]
) -> Iterator[Mapping[str, Scalar]]:
    """All combinations of what a rule looks at and of what the conditions of that look at.

    The bits of single layers change together: a layer is refused for its own bits alone.
    """
    keys = {*rule, *(p.key for p in parameters if _rule_key(p.key) in rule)}
    for parameter in reversed(parameters):  # a condition looks at earlier ones
        if parameter.key in keys and parameter.condition is not None:
            keys.add(parameter.condition.key)
    conditions = {p.condition.key for p in parameters if p.condition is not None}
    searched = {
        p.key: values_to_try(p.domain) if p.key in conditions else _telling(p)
        for p in parameters
        if p.key in keys
    }
    layers = {k: v for k, v in searched.items() if _rule_key(k) == LAYERS and k not in conditions}
    others = {k: v for k, v in searched.items() if k not in layers}
    kinds = range(max(map(len, layers.values()), default=1))
    for combination in _product([kinds, *others.values()]):
        kind, *values = combination
        chosen = {key: layer[kind % len(layer)] for key, layer in layers.items()}
        yield {**chosen, **dict(zip(others, values, strict=True))}


def _product(axes: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    if math.prod(len(axis) for axis in axes) <= MOST:
        yield from itertools.product(*axes)
        return
    rng = random.Random(0)
    for _ in range(MOST):
        yield tuple(rng.choice(axis) for axis in axes)


def _telling(parameter: Parameter) -> Sequence[Scalar]:
    """One value of each kind that the rules tell apart: up to 4 bits, 5 to 7, 8, and 16."""
    values = values_to_try(parameter.domain)
    if _rule_key(parameter.key) not in _BITS:
        return values
    kinds = {(bits > 4) + (bits > 7) + (bits > 8): bits for bits in values if isinstance(bits, int)}
    return tuple(kinds.values())


def _rule_key(key: str) -> str:
    """The key under which rules look at a parameter."""
    return LAYERS if key.startswith(LAYERS) else key


def _chosen_or_first(chosen: Mapping[str, Scalar], parameter: Parameter) -> Scalar:
    return chosen.get(parameter.key, values_to_try(parameter.domain)[0])
