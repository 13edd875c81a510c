"""Records to JSON and back, strictly: a misspelt or missing key is an error, not a default."""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from duqsweep.errors import SpecError

T = TypeVar("T")

_shown = reprlib.Repr()  # values in messages: a damaged file may hold anything, of any length
_shown.maxlevel, _shown.maxstring, _shown.maxother = 3, 80, 80


def encode(record: Any) -> dict[str, Any]:
    """A frozen dataclass as plain JSON data; tuples become lists."""
    return dataclasses.asdict(record)


def decode(cls: type[T], data: Any, where: str = "") -> T:
    """Build dataclass `cls` from JSON data.

    Args:
        cls: A dataclass of scalars, tuples, dicts with string keys, optional values and other
            dataclasses.
        data: What `json.loads` returned.
        where: Path of `data` in the whole document, for messages.

    Raises:
        SpecError: `data` has an unknown key, lacks one without a default, or holds a wrong type.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"{where or cls.__name__} must be an object, got {_shown.repr(data)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise SpecError(
            f"{where or cls.__name__} has no key {unknown[0]!r}; it has {sorted(fields)}"
        )
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode_value(hints[name], data[name], f"{where}.{name}".lstrip("."))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SpecError(f"{where or cls.__name__} lacks the key {name!r}")
    return cls(**values)


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    args = typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _decode_union(args, value, where)
    if origin is typing.Literal:
        if value not in args:
            raise SpecError(f"{where} must be one of {list(args)}, got {_shown.repr(value)}")
        return value
    if origin is tuple:
        return _decode_tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise SpecError(f"{where} must be an object, got {_shown.repr(value)}")
        return {
            key: _decode_value(args[1], item, f"{where}.{key if key.isprintable() else repr(key)}")
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise SpecError(f"{where} must be a float, got {_shown.repr(value)}") from error
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SpecError(f"{where} must be {hint.__name__}, got {_shown.repr(value)}")
    return value


def _decode_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    named = [option for option in options if option is not type(None)]
    for option in named[:-1]:
        try:
            return _decode_value(option, value, where)
        except SpecError:
            continue  # the last option raises, and names the rule
    return _decode_value(named[-1], value, where)


def _decode_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SpecError(f"{where} must be a list, got {_shown.repr(value)}")
    if args[-1] is Ellipsis:
        return tuple(_decode_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(args) != len(value):
        raise SpecError(f"{where} must have {len(args)} entries, got {_shown.repr(value)}")
    pairs = zip(args, value, strict=True)
    return tuple(_decode_value(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(pairs))
