"""Whose study it is: a sweep goes on only with the space and the folder that it began with."""

from __future__ import annotations

import json
from typing import Any

import optuna

from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.errors import ConfigError

# User attributes of the study.
SPACE = "space"
DIRECTORY = "directory"


def claim(study: optuna.Study, config: SweepConfig, space: Space) -> None:
    """Write whose study it is; raise ConfigError when it is another's, or its space changed."""
    identity = json.loads(json.dumps(space.identity()))
    known = study.user_attrs.get(SPACE)
    if known is None:
        study.set_user_attr(DIRECTORY, str(config.directory))
        study.set_user_attr(SPACE, identity)
        return
    if config.storage_url and study.user_attrs[DIRECTORY] != str(config.directory):
        raise ConfigError(
            f"the storage already holds a sweep {config.name!r}, in the folder "
            f"{study.user_attrs[DIRECTORY]}; choose another name=…"
        )
    if known != identity:
        raise ConfigError(
            f"sweep {config.name!r} was started with another space: "
            f"{_difference(known, identity)}; undo the change, or start a new sweep with name=…"
        )


def _difference(old: Any, new: Any, where: str = "") -> str:
    """The first place where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{where} {key}".strip())
    return f"{where} was {old}, is {new}"
