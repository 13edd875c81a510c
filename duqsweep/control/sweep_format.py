"""The version of the files in a sweep's folder: a folder of another version is refused."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.errors import ConfigError, EvaluationError

FORMAT = 2
FORMAT_KEY = "format"  # in identity.json; format 1 did not have it


def check_format(directory: Path) -> None:
    """Raise ConfigError when a sweep was begun in the folder and its files have another format."""
    path = directory / files.IDENTITY_JSON
    if path.exists():
        with suppress(EvaluationError):  # a damaged one: the study knows it as well
            compare_format(files.read_object(path), f"the folder {directory}")
    elif (directory / files.SWEEP_YAML).exists():
        compare_format({}, f"the folder {directory}")


def compare_format(identity: Any, where: str) -> None:
    """Raise ConfigError when an identity is of another format.

    Args:
        identity: The content of identity.json, or of the study's copy.
        where: It was found, for the message.
    """
    known = identity.get(FORMAT_KEY, 1) if isinstance(identity, Mapping) else 1
    if known != FORMAT:
        age = "a newer" if isinstance(known, int) and known > FORMAT else "an older"
        raise ConfigError(
            f"{where}: this sweep was begun with {age} duqsweep (format {known}); this one writes "
            f"format {FORMAT}: start a new one with name=…"
        )
