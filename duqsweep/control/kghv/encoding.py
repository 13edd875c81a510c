"""Points of a search space as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.config.grammar import Choice, Domain, FloatRange
from duqsweep.control.config.parameters import Parameter
from duqsweep.control.config.settings import LAYERS
from duqsweep.setting import Scalar

Floats = NDArray[np.float64]

MOST_SHARES = 16  # values of a group's parameters, of which the shares are counted
LOG_RATIO = 4.0  # a numeric choice that spans more than this is laid out by its logarithm


@dataclass(frozen=True)
class Column:
    """Where one parameter lies in an encoded point."""

    key: str
    # Parameters of one group share a length scale, and have together the weight of one parameter
    # without a group: all layers' bits, for example.
    group: str
    span: slice


class Encoding:
    """Encodes points, so that the squared distance of two values of one parameter is at most 1.

    Numbers lie between 0 and 1, by their logarithm where the domain says so or a choice of
    positive numbers spans more than `LOG_RATIO`. Words are one-hot, any two of them at distance 1.
    A parameter whose condition does not hold has a value of its own, at distance 1 of all others.

    A group of several parameters has one more column: the shares of its parameters that have each
    value. So a model can learn what four bits cost in any layer before it knows the layers apart.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Lays out the columns in the order of `parameters`."""
        self._scales = [_Scale(p.domain, has_condition=p.condition is not None) for p in parameters]
        self.columns: list[Column] = []
        start = 0
        for parameter, scale in zip(parameters, self._scales, strict=True):
            group = f"{LAYERS}*" if parameter.key.startswith(LAYERS) else parameter.key
            self.columns.append(Column(parameter.key, group, slice(start, start + scale.width)))
            start += scale.width
        members: dict[str, list[Parameter]] = {}
        for parameter, column in zip(parameters, self.columns, strict=True):
            members.setdefault(column.group, []).append(parameter)
        self._own = tuple(self.columns)  # of the parameters, before those of their groups
        self._shares: list[tuple[slice, _Shares]] = []
        for group, several in members.items():
            shares = _Shares.of(several)
            if shares is not None:
                span = slice(start, start + shares.width)
                self.columns.append(Column(f"{group} shares", f"{group} shares", span))
                self._shares.append((span, shares))
                start += shares.width
        self.width = start

    def encode(self, points: Sequence[Mapping[str, Scalar]]) -> Floats:
        """Points → (points, width)."""
        encoded = np.zeros((len(points), self.width))
        if points:
            for column, scale in zip(self._own, self._scales, strict=True):
                encoded[:, column.span] = [scale.encode(point.get(column.key)) for point in points]
            for span, shares in self._shares:
                encoded[:, span] = [shares.encode(point) for point in points]
        return encoded


class _Scale:
    """The columns of one parameter."""

    def __init__(self, domain: Domain, has_condition: bool) -> None:
        self._numbers = _numbers(domain)
        self._words: tuple[Scalar, ...] = ()
        if self._numbers is None and isinstance(domain, Choice):
            self._words = domain.values
        self.width = (len(self._words) or 1) + has_condition
        self._encoded: dict[Scalar | None, tuple[float, ...]] = {}

    def encode(self, value: Scalar | None) -> tuple[float, ...]:
        """One value, None where the parameter's condition does not hold."""
        if isinstance(value, float):  # of an interval: there are too many to keep
            return self._encode(value)
        found = self._encoded.get(value)
        if found is None:
            found = self._encoded[value] = self._encode(value)
        return found

    def _encode(self, value: Scalar | None) -> tuple[float, ...]:
        encoded = [0.0] * self.width
        if value is None:
            encoded[-1] = math.sqrt(0.5)
        elif self._numbers is not None:
            low, high, is_log = self._numbers
            number = math.log(float(value)) if is_log else float(value)
            encoded[0] = (number - low) / (high - low) if high > low else 0.0
        else:
            encoded[self._words.index(value)] = math.sqrt(0.5)
        return tuple(encoded)


class _Shares:
    """The columns of a group: the share of its parameters that has each value."""

    def __init__(self, keys: Sequence[str], values: Sequence[Scalar]) -> None:
        self._keys = tuple(keys)
        self._place_of: dict[Scalar | None, int] = {value: i for i, value in enumerate(values)}
        self.width = len(values) + 1  # the last is of parameters whose condition does not hold

    @classmethod
    def of(cls, members: Sequence[Parameter]) -> _Shares | None:
        """None for a single parameter, and for one that has too many values to count."""
        values: dict[Scalar, None] = {}
        for member in members:
            if isinstance(member.domain, FloatRange):
                return None
            values.update(dict.fromkeys(member.domain.values[: MOST_SHARES + 1]))
        if len(members) < 2 or len(values) > MOST_SHARES:
            return None
        return cls([member.key for member in members], list(values))

    def encode(self, point: Mapping[str, Scalar]) -> tuple[float, ...]:
        """One point; two points that share no value are at distance 1 where each has one value."""
        shares = [0.0] * self.width
        for key in self._keys:
            shares[self._place_of.get(point.get(key), -1)] += math.sqrt(0.5) / len(self._keys)
        return tuple(shares)


def _numbers(domain: Domain) -> tuple[float, float, bool] | None:
    """Lowest and highest place on the scale and whether it is logarithmic; None: words."""
    if isinstance(domain, Choice):
        if not all(isinstance(value, (bool, int, float)) for value in domain.values):
            return None
        values = [float(value) for value in domain.values]
        low, high = min(values), max(values)
        is_log = low > 0 and high / low >= LOG_RATIO
    else:
        low, high, is_log = float(domain.low), float(domain.high), domain.log
    return (math.log(low), math.log(high), True) if is_log else (low, high, False)
