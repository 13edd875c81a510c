"""Configurations that tests share: composing one takes a third of a second."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from duqsweep.control.config.sweep_config import SweepConfig, compose


@cache
def composed(*overrides: str) -> SweepConfig:
    """What `compose` gives, once per process; it is a record that nobody changes."""
    return compose(overrides)


def composed_in(directory: Path, *overrides: str) -> SweepConfig:
    """The same for a sweep in `directory`; only its `yaml` names another."""
    return replace(composed(*overrides), directory=directory)
