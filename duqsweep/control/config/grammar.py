"""Parses domains and conditions of a search space; values follow Hydra's own sweep grammar."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from duqsweep.errors import ConfigError
from duqsweep.setting import Scalar

MOST_VALUES = 100_000  # of a range, which are listed one by one
FORMS = "choice(16, 32), int(interval(1, 10)), interval(0.0, 0.8), range(1, 11), tag(log, …)"


@dataclass(frozen=True)
class Choice:
    """One of these values, which have no order."""

    values: tuple[Scalar, ...]

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(known) and value == known for known in self.values)


@dataclass(frozen=True)
class IntRange:
    """The whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    @property
    def values(self) -> range:
        """All of them, ascending."""
        return range(self.low, self.high + 1, self.step)

    def __contains__(self, value: object) -> bool:
        return type(value) is int and value in self.values


@dataclass(frozen=True)
class FloatRange:
    """Any number from `low` to `high`."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float) and self.low <= value <= self.high


Domain = Choice | IntRange | FloatRange


def parse_domain(key: str, value: Any) -> Domain:
    """The values that `key` may take.

    Ranges mean what Hydra means: `range(1, 4)` is 1, 2, 3. A single value is a choice of one.

    Args:
        key: For messages.
        value: Text in Hydra's sweep grammar, or a plain scalar.

    Raises:
        ConfigError: The text does not parse, or names no value, or one that a trial cannot have.
    """
    if isinstance(value, (list, tuple, Mapping)) or value is None:
        raise _refused(key, value, "a list is one value to Hydra: write choice(…)")
    if not isinstance(value, str):
        return Choice((value,))
    try:
        override = OverridesParser.create().parse_override(f"value={value}")
    except HydraException as error:
        raise _refused(key, value, str(error).splitlines()[0]) from error
    parsed = override._value if isinstance(override._value, Sweep) else override.value()
    if isinstance(parsed, ChoiceSweep):
        return _choice(key, value, parsed)
    if isinstance(parsed, RangeSweep):
        return _range(key, value, parsed)
    if isinstance(parsed, IntervalSweep):
        return _interval(key, value, parsed)
    return Choice((_scalar(key, value, parsed),))


def _choice(key: str, text: str, sweep: ChoiceSweep) -> Choice:
    if sweep.tags:
        raise _refused(key, text, "a choice has no order, so no tag fits it")
    values = tuple(_scalar(key, text, item) for item in sweep.list)
    twice = [v for i, v in enumerate(values) if v in Choice(values[:i])]
    if twice:
        raise _refused(key, text, f"it lists {twice[0]!r} twice")
    return Choice(values)


def _scalar(key: str, text: str, item: Any) -> Scalar:
    if isinstance(item, QuotedString):
        return item.text
    if isinstance(item, Glob) or not isinstance(item, (bool, int, float, str)):
        raise _refused(key, text, "each value must be a number, true, false or a word")
    if isinstance(item, float) and not math.isfinite(item):
        raise _refused(key, text, "numbers must be finite")
    return item


def _range(key: str, text: str, sweep: RangeSweep) -> Domain:
    if sweep.tags:
        raise _refused(key, text, "tags fit intervals: tag(log, int(interval(1, 64)))")
    if sweep.step == 0:
        raise _refused(key, text, "its step is 0")
    assert sweep.start is not None
    assert sweep.stop is not None
    if (sweep.stop - sweep.start) / sweep.step > MOST_VALUES:
        raise _refused(key, text, f"it has more than {MOST_VALUES:,} values; an interval may")
    values = sorted(sweep.range())
    if not values:
        raise _refused(key, text, "it is empty; the stop of a range is not part of it")
    if all(isinstance(value, int) for value in values):
        return IntRange(int(values[0]), int(values[-1]), abs(int(sweep.step)))
    return Choice(tuple(float(value) for value in values))


def _interval(key: str, text: str, sweep: IntervalSweep) -> Domain:
    if "int" in sweep.tags:
        raise _refused(key, text, "`int` is only a tag here: write tag(log, int(interval(…)))")
    if sweep.tags - {"log"}:
        raise _refused(key, text, f"the only tag is log, got {sorted(sweep.tags)}")
    assert sweep.start is not None
    assert sweep.end is not None
    if not (math.isfinite(sweep.start) and math.isfinite(sweep.end)):
        raise _refused(key, text, "its ends must be finite")
    if not sweep.start < sweep.end:
        raise _refused(key, text, "its start must lie below its end")
    log = "log" in sweep.tags
    if log and sweep.start <= 0:
        raise _refused(key, text, "a log interval must start above 0")
    if isinstance(sweep.start, int) and isinstance(sweep.end, int):
        return IntRange(sweep.start, sweep.end, log=log)
    return FloatRange(float(sweep.start), float(sweep.end), log=log)


def _refused(key: str, value: Any, why: str) -> ConfigError:
    return ConfigError(f"space key {key}: cannot use {value!r}: {why}. Forms: {FORMS}")


@dataclass(frozen=True)
class Condition:
    """`key` has (or, negated, has none of) these values."""

    key: str
    values: tuple[Scalar, ...]
    negated: bool = False

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether it is true of these settings."""
        return (settings.get(self.key) in Choice(self.values)) != self.negated


_CONDITION = re.compile(r"\s*([\w.*]+)\s*(==|!=|\bin\b)\s*(.+?)\s*")


def parse_condition(key: str, text: str) -> Condition:
    """A condition `KEY == VALUE`, `KEY != VALUE` or `KEY in [VALUE, …]`.

    Raises:
        ConfigError: It is none of these.
    """
    found = _CONDITION.fullmatch(text)
    if not found:
        raise _bad_condition(key, text)
    other, operator, right = found.groups()
    try:
        value = OverridesParser.create().parse_override(f"value={right}").value()
    except HydraException as error:
        raise _bad_condition(key, text) from error
    values = value if operator == "in" else [value]
    if not isinstance(values, list) or not all(isinstance(v, (int, float, str)) for v in values):
        raise _bad_condition(key, text)
    return Condition(other, tuple(values), negated=operator == "!=")


def _bad_condition(key: str, text: str) -> ConfigError:
    return ConfigError(
        f"when.{key}: cannot read {text!r}; forms: KEY == VALUE, KEY != VALUE, KEY in [VALUE, …]"
    )
