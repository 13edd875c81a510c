"""Checks that folder, study and configuration belong to one sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna

from duqsweep import files
from duqsweep.checkpoint.contents import checkpoint_contents
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.sweep_format import FORMAT, FORMAT_KEY, check_format, compare_format
from duqsweep.errors import ConfigError, EvaluationError

# User attributes of the study.
IDENTITY = "space"  # this name since format 1, so that a study of format 1 is recognized
DIRECTORY = "directory"


def identity(config: SweepConfig, space: Space) -> dict[str, Any]:
    """Everything that two halves of one sweep must share, in named parts, as plain JSON data."""
    contents = checkpoint_contents(config.base.policy)
    parts = {
        FORMAT_KEY: FORMAT,
        "name": config.name,
        **space.identity(),
        "checkpoint": contents,
    }
    return dict(json.loads(json.dumps(parts)))


def check_folder(directory: Path, parts: Mapping[str, Any]) -> None:
    """Raise ConfigError when the folder belongs to another sweep or format; writes nothing."""
    check_format(directory)
    path = directory / files.IDENTITY_JSON
    if path.exists():
        with suppress(EvaluationError):  # a damaged one: the study knows it as well
            _compare(files.read_object(path), parts, f"the folder {directory}")
    elif has_trials(directory):
        raise ConfigError(
            f"{directory} holds trials and no {files.SWEEP_YAML}, so that nothing says which sweep "
            "they belong to: set another dir=FOLDER"
        )


def check_study(study: optuna.Study, config: SweepConfig, parts: Mapping[str, Any]) -> None:
    """Raise ConfigError when the study belongs to another sweep; a new one is marked as this."""
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(DIRECTORY, str(config.directory))
        study.set_user_attr(IDENTITY, dict(parts))
        return
    folder = study.user_attrs[DIRECTORY]
    is_moved = config.storage_url is not None and folder != str(config.directory)
    if is_moved and folder != str(config.moved_from):
        raise ConfigError(
            f"the storage already holds a sweep {config.name!r}, in the folder {folder}; choose "
            f"another name=…; or if that folder was moved here, add storage.moved_from='{folder}'"
        )
    compare_format(known, "the study")
    _compare(known, parts, "the study")
    if is_moved:
        study.set_user_attr(DIRECTORY, str(config.directory))


def has_trials(directory: Path) -> bool:
    """Whether a sweep has begun in the folder."""
    return any((directory / files.TRIALS_DIR).glob(f"*/{files.SPEC_JSON}"))


def _compare(known: Mapping[str, Any], parts: Mapping[str, Any], where: str) -> None:
    if known.get("name") != parts["name"]:
        raise ConfigError(
            f"{where} belongs to the sweep {known.get('name')!r}, not to {parts['name']!r}: choose "
            "another dir=FOLDER, or use its own name"
        )
    if known != parts:
        raise ConfigError(
            f"sweep {parts['name']!r} was started with another "
            f"{_difference(dict(known), dict(parts))}; undo the change, or start a new sweep with "
            "name=…"
        )


def _difference(old: Any, new: Any, where: str = "") -> str:
    """The first place where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{where} {key}".strip())
    return f"{where} was {old}, is {new}"
