"""How much of the differences in success each parameter explains: `importances.json`.

They take seconds to compute, so they are kept in a file, and every front of the sweep has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duqsweep import files
from duqsweep.codec import decode, encode


@dataclass(frozen=True)
class Importance:
    """Share of the variance of the success rate, over the space, that one parameter explains alone.

    The shares of all parameters add up to less than 1 where parameters interact.
    """

    parameter: str  # its key in the space
    share: float  # posterior mean
    low: float  # 90 % of the posterior lie between these
    high: float


@dataclass(frozen=True)
class _Content:
    """The content of importances.json."""

    importances: tuple[Importance, ...]


def read_importances(sweep_dir: Path) -> tuple[Importance, ...]:
    """As they were computed last; empty where they never were.

    Raises:
        ConfigError: The file is torn, or not of this version of duqsweep.
    """
    found = files.read_derived(
        sweep_dir / files.IMPORTANCES_JSON,
        lambda data: decode(_Content, data, files.IMPORTANCES_JSON),
        "of another version",
        "the sweep's next end or `confirm` writes it again",
    )
    return () if found is None else found.importances


def write_importances(sweep_dir: Path, importances: Sequence[Importance]) -> None:
    """Replace the file; none is written where there is nothing to say."""
    path = sweep_dir / files.IMPORTANCES_JSON
    if importances:
        files.write_json(path, encode(_Content(tuple(importances))))
    else:
        path.unlink(missing_ok=True)
