"""JSON files of a checkpoint, read strictly: each fault names the file and the key."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from duqsweep.codec import decode
from duqsweep.errors import ConfigError, EvaluationError, SpecError
from duqsweep.files import read_json

T = TypeVar("T")

LONGEST_KEY = 200  # characters; messages repeat keys
ALIKE = 0.75  # a key this similar to one that is missing is a misspelling of it


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ConfigError: There is no such file, it holds something else, or a key is far too long.
    """
    if not path.is_file():
        raise ConfigError(f"checkpoint {path.parent} has no {path.name}")
    try:
        data = read_json(path)
    except EvaluationError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold an object")
    for key in _keys(data):
        if len(key) > LONGEST_KEY:
            raise ConfigError(
                f"{path}: keys have at most {LONGEST_KEY} characters, got one of {len(key)}, "
                f"{key[:80]!r}…"
            )
    return data


def _keys(value: Any) -> Iterator[str]:
    """Every key of a document."""
    if isinstance(value, dict):
        yield from value
    if isinstance(value, (dict, list)):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _keys(below)


def decode_known(
    cls: type[T], data: Mapping[str, Any], where: str, others: Collection[str] = ()
) -> T:
    """The keys of a JSON object that the dataclass `cls` knows, with their types checked.

    Checkpoints hold many keys that play no part here, and later versions of their authors add
    more. So an unknown key is an error only where it looks like a misspelling of one that is
    missing.

    Args:
        cls: What `codec.decode` can build.
        data: The object.
        where: Its file, and its place there.
        others: Keys that are right although they play no part here.

    Raises:
        ConfigError: A key is misspelt or missing, or a value has another type.
    """
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    missing = [name for name in names if name not in data]
    for key in data:
        if key in names or key in others:
            continue
        meant = difflib.get_close_matches(key.lower().replace("-", "_"), missing, 1, ALIKE)
        if meant:
            raise ConfigError(f"{where}: unknown key {key!r} (did you mean {meant[0]!r}?)")
    try:
        return decode(cls, {name: data[name] for name in names if name in data})
    except SpecError as error:
        raise ConfigError(f"{where}: {error}") from error
