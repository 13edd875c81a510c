"""How a field of a specification is declared: its type, values, default and help, in one place.

The configuration's schema, what a trial can set, the checks of a space, fingerprints, names of
packs and `explain --settings` are derived from the declarations.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal

from duqsweep.errors import SpecError

Scalar = bool | int | float | str

# Which packed weights a setting changes: none; those below 16 bits; all of them.
Packs = Literal["none", "rounded", "all"]


@dataclass(frozen=True)
class Setting:
    """One declared field."""

    name: str
    hint: Any  # its type, as written
    default: Any  # dataclasses.MISSING where a value must be given
    help: str
    allowed: tuple[Scalar, ...]  # empty: no list of values
    allowed_text: str  # the list in words; empty: its values
    low: float | None  # smallest value
    above: float | None  # or a bound that is itself too small
    high: float | None  # largest value
    shared: bool  # all trials of a sweep have the same value
    path: bool  # of a file or folder, relative to where the command was typed
    packs: Packs
    used: Callable[[Any], bool] | None  # whether it has an effect in a given record; None: always

    @property
    def kind(self) -> type:
        """bool, int, float or str; for lists and mappings, the type of an entry."""
        hint = self.hint
        while typing.get_origin(hint) not in (None, Literal):
            hint = next(arg for arg in reversed(typing.get_args(hint)) if arg not in _NO_KIND)
        return type(typing.get_args(hint)[0]) if typing.get_args(hint) else hint

    @property
    def optional(self) -> bool:
        """Whether None is a value."""
        return type(None) in typing.get_args(self.hint)

    def check(self, key: str, value: object) -> None:
        """Raise SpecError unless `value` is allowed; its type was checked before.

        Args:
            key: Dotted name for the message, e.g. "quant.block_size".
            value: The value.
        """
        if not (value is None and self.optional) and not self._allows(value):
            raise SpecError(f"{key} must be {self.rule}, got {value!r}")

    def _allows(self, value: Any) -> bool:
        if self.allowed:
            return value in self.allowed
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
        )

    @property
    def rule(self) -> str:
        """What is allowed, e.g. "one of 16, 32", "1 to 100" or "int"; follows "must be"."""
        if self.allowed:
            return self.allowed_text or f"one of {', '.join(map(str, self.allowed))}"
        if self.low is not None and self.high is not None:
            return f"{_number(self.low)} to {_number(self.high)}"
        words = {"at least": self.low, "more than": self.above, "at most": self.high}
        bounds = [f"{word} {_number(bound)}" for word, bound in words.items() if bound is not None]
        return " and ".join(bounds) or self.kind.__name__

    def changes_pack(self, record: Any, rounded: bool) -> bool:
        """Whether the setting shapes the packed weights of a layer.

        Args:
            record: The specification that has the setting.
            rounded: Whether the layer's weights have fewer than 16 bits.
        """
        packs = self.packs == "all" or (self.packs == "rounded" and rounded)
        return packs and self.is_used(record)

    def is_used(self, record: Any) -> bool:
        """Whether the setting has an effect beside the other values of `record`."""
        return self.used is None or self.used(record)


_NO_KIND = (type(None), Ellipsis)


def setting(
    help: str,
    *,
    allowed: tuple[Scalar, ...] = (),
    allowed_text: str = "",
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    shared: bool = False,
    path: bool = False,
    packs: Packs = "all",
    used: Callable[[Any], bool] | None = None,
) -> dict[str, Any]:
    """Metadata that makes a dataclass field a setting: `field(default=16, metadata=setting(…))`.

    Args:
        help: One line for the user, with the unit.
        allowed: The values; those of a `Literal` type need not be repeated.
        allowed_text: The list in words, for messages.
        low: Smallest value.
        above: A bound that the value must exceed, in place of `low`.
        high: Largest value.
        shared: All trials of a sweep have the same value, so that a space cannot search it.
        path: A file or folder; made absolute from where the command was typed.
        packs: Which packed weights of the quantizer depend on it. "all" is always right; a
            narrower answer lets trials share packs.
        used: Says of a record whether the setting has an effect in it. Where it has none, it
            counts neither for the fingerprint nor for packs.
    """
    return {
        "help": help,
        "allowed": allowed,
        "allowed_text": allowed_text,
        "low": low,
        "above": above,
        "high": high,
        "shared": shared,
        "path": path,
        "packs": packs,
        "used": used,
    }


def declared_settings(record: type) -> dict[str, Setting]:
    """The settings that a dataclass declares, by name, in order."""
    return _declared_settings(record)


@cache
def _declared_settings(record: type) -> dict[str, Setting]:
    hints = typing.get_type_hints(record)
    found = {}
    for field in fields(record):
        if "help" in field.metadata:
            made = MISSING if field.default_factory is MISSING else field.default_factory()
            default = made if field.default is MISSING else field.default
            declared = {**field.metadata}
            if typing.get_origin(hints[field.name]) is Literal:
                declared["allowed"] = typing.get_args(hints[field.name])
            found[field.name] = Setting(field.name, hints[field.name], default, **declared)
    return found


def check_settings(record: Any, section: str) -> None:
    """Raise SpecError unless each setting of `record` has an allowed value.

    Args:
        record: A dataclass with settings.
        section: First part of its keys, e.g. "quant".
    """
    for name, declared in declared_settings(type(record)).items():
        declared.check(f"{section}.{name}", getattr(record, name))


@dataclass(frozen=True)
class Rule:
    """A check that looks at several fields of a record together.

    `check` gets only the fields that are listed, so that a field which is missing in the list shows
    at once. A space tries all combinations of what a rule looks at.
    """

    fields: tuple[str, ...]
    check: Callable[..., None]  # raises ConfigError

    def of(self, record: Any) -> Callable[..., None]:
        """The check of one record; takes what else `check` needs."""
        seen = SimpleNamespace(**{name: getattr(record, name) for name in self.fields})
        return lambda *others: self.check(seen, *others)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
