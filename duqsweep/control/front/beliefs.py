"""What a model of all trials believes of each trial's success rate: `posterior.json`.

A search with such a model writes it. Its means are nearly unbiased, while the raw rates of a front
are too good, because lucky trials get there; so the front goes by them where they exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from duqsweep import files
from duqsweep.codec import decode, encode


@dataclass(frozen=True)
class Belief:
    """The posterior of a success rate."""

    mean: float  # 0 to 1
    sd: float
    p_front: float | None = None  # probability to be on the front; None where it cannot be


def read_beliefs(sweep_dir: Path) -> dict[int, Belief]:
    """By trial; empty where no search has written any.

    Raises:
        SpecError: The file is not of this form.
        EvaluationError: It is not JSON.
    """
    path = sweep_dir / files.POSTERIOR_JSON
    if not path.exists():
        return {}
    data = files.read_json(path)
    return {int(number): decode(Belief, belief, path.name) for number, belief in data.items()}


def write_beliefs(sweep_dir: Path, beliefs: Mapping[int, Belief]) -> None:
    """Replace the file, if anything has changed."""
    if beliefs != read_beliefs(sweep_dir):
        data = {str(number): encode(belief) for number, belief in beliefs.items()}
        files.write_json(sweep_dir / files.POSTERIOR_JSON, data)
