"""Records to JSON and back, strictly: a misspelt or missing key is an error, not a default."""

from __future__ import annotations

import dataclasses
import functools
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from duqsweep.errors import SpecError

T = TypeVar("T")

# Metadata of a field whose own keys stand beside the other fields' keys, without a level of their
# own. The field is a dataclass, or one dictionary that takes all keys that no field has.
FLAT: Mapping[str, bool] = types.MappingProxyType({"flat": True})
_repr = reprlib.Repr()  # values in messages: a damaged file may hold anything, of any length
_repr.maxlevel, _repr.maxstring, _repr.maxother = 3, 80, 80


def shown(value: Any) -> str:
    """A value as messages show it, cut to a readable length."""
    return _repr.repr(value)


def encode(record: Any) -> dict[str, Any]:
    """A frozen dataclass as plain JSON data; tuples become lists."""
    data: dict[str, Any] = {}
    for name, is_flat in _names(record.__class__).items():
        value = _encode_value(getattr(record, name))
        if is_flat:
            data |= value
        else:
            data[name] = value
    return data


def _encode_value(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {key: _encode_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode_value(item) for item in value]
    return encode(value) if dataclasses.is_dataclass(value) else value


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
    if type(data) is not dict and not isinstance(data, Mapping):
        raise SpecError(f"{where or cls.__name__} must be an object, got {shown(data)}")
    record: Any = cls  # mypy takes no type[T] for a hashable value
    fields = _fields(record)
    data = _nested(record, data)
    if not data.keys() <= fields.keys():
        unknown = min(data.keys() - fields.keys())
        raise SpecError(
            f"{where or cls.__name__} has no key {unknown!r}; it has {sorted(_keys(record))}"
        )
    values = {}
    for name, (hint, plain, is_needed) in fields.items():
        if name in data:
            value = data[name]
            is_plain = type(value) in plain
            path = "" if is_plain else f"{where}.{name}".lstrip(".")
            values[name] = value if is_plain else _decode_value(hint, value, path)
        elif is_needed:
            raise SpecError(f"{where or cls.__name__} lacks the key {name!r}")
    return cls(**values)


@functools.cache
def _fields(cls: Any) -> dict[str, tuple[Any, frozenset[type], bool]]:
    """Of each field its type, the types of values that are taken as they are, if it is needed."""
    hints = _hints(cls)
    return {
        field.name: (
            hints[field.name],
            _plain_types(hints[field.name]),
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)
    }


def _plain_types(hint: Any) -> frozenset[type]:
    """The scalar types that `hint` allows."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if is_union else (hint,)
    return frozenset({bool, int, float, str, types.NoneType} & {*options})


def _nested(cls: Any, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """`data` with the keys of each flat field under that field's name."""
    flat = _flat(cls)
    if not flat:
        return data
    rest, nested = dict(data), {}
    for name, own, others in flat:
        taken = rest.keys() - others if own is None else rest.keys() & own
        nested[name] = {key: rest.pop(key) for key in data if key in taken}
    for name in rest.keys() & nested.keys():  # its keys stand beside the others, not under it
        raise SpecError(f"{cls.__name__} has no key {name!r}; it has {sorted(_keys(cls))}")
    return rest | nested


@functools.cache
def _flat(cls: Any) -> list[tuple[str, frozenset[str] | None, frozenset[str]]]:
    """Name and keys of each flat field, dictionaries last; None: all but the keys of `cls`."""
    hints = _hints(cls)
    flat = [name for name, is_flat in _names(cls).items() if is_flat]
    records = [name for name in flat if dataclasses.is_dataclass(hints[name])]
    others = [name for name in flat if name not in records]
    return [
        *((name, _keys(hints[name]), frozenset()) for name in records),
        *((name, None, _keys(cls)) for name in others),
    ]


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """The types of a dataclass's fields, which are slow to look up."""
    hints = typing.get_type_hints(cls)
    return {name: hints[name] for name in _names(cls)}


@functools.cache
def _names(cls: Any) -> dict[str, bool]:
    """The fields of a dataclass, and whether each is flat."""
    return {field.name: "flat" in field.metadata for field in dataclasses.fields(cls)}


@functools.cache
def _keys(cls: Any) -> frozenset[str]:
    """The keys of a dataclass's JSON data, except those that only a flat dictionary knows."""
    keys: set[str] = set()
    for name, is_flat in _names(cls).items():
        if not is_flat:
            keys.add(name)
        elif dataclasses.is_dataclass(_hints(cls)[name]):
            keys |= _keys(_hints(cls)[name])
    return frozenset(keys)


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    if type(value) is hint:
        return value
    origin, args, _plain = _shape(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _decode_union(args, value, where)
    if origin is typing.Literal:
        if value not in args:
            raise SpecError(f"{where} must be one of {list(args)}, got {shown(value)}")
        return value
    if origin is tuple:
        return _decode_tuple(hint, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise SpecError(f"{where} must be an object, got {shown(value)}")
        return _decode_items(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise SpecError(f"{where} must be a float, got {shown(value)}") from error
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SpecError(f"{where} must be {hint.__name__}, got {shown(value)}")
    return value


def _decode_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if type(value) in options:
        return value
    named = [option for option in options if option is not type(None)]
    for option in named[:-1]:
        try:
            return _decode_value(option, value, where)
        except SpecError:
            continue  # the last option raises, and names the rule
    return _decode_value(named[-1], value, where)


def _decode_items(hint: Any, value: Mapping[str, Any], where: str) -> dict[str, Any]:
    _, args, plain = _shape(hint)
    return {
        key: item
        if type(item) in plain[1]
        else _decode_value(args[1], item, f"{where}.{key if key.isprintable() else repr(key)}")
        for key, item in value.items()
    }


def _decode_tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SpecError(f"{where} must be a list, got {shown(value)}")
    _, args, plain = _shape(hint)
    if args[-1] is Ellipsis:
        args, plain = args[:1] * len(value), plain[:1] * len(value)
    elif len(args) != len(value):
        raise SpecError(f"{where} must have {len(args)} entries, got {shown(value)}")
    return tuple(
        item if type(item) in plain[i] else _decode_value(args[i], item, f"{where}[{i}]")
        for i, item in enumerate(value)
    )


@functools.cache
def _shape(hint: Any) -> tuple[Any, tuple[Any, ...], tuple[frozenset[type], ...]]:
    """Origin and arguments of a type, and of each argument the scalar types that it allows."""
    args = typing.get_args(hint)
    return typing.get_origin(hint), args, tuple(map(_plain_types, args))
