"""What a model of all trials believes of each trial's success rate: `posterior.json`.

A search with such a model writes it. Its means are nearly unbiased, while the raw rates of a front
are too good, because lucky trials get there; so the front goes by them where they exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duqsweep import files
from duqsweep.codec import decode, encode
from duqsweep.control.front.pareto import on_front

DRAWS = 2000  # of the probability to be on the front: a standard error below 0.012


@dataclass(frozen=True)
class Belief:
    """The posterior of a success rate."""

    mean: float  # 0 to 1
    sd: float


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


def front_chances(
    beliefs: Sequence[Belief], costs: Sequence[Sequence[float]], noise: Sequence[float]
) -> list[float]:
    """The probability of each trial to be on the front of success rates and costs.

    Args:
        beliefs: One per trial; rates are drawn from normals cut to 0 to 1, independently.
        costs: Of each trial, all minimised.
        noise: Relative standard deviation of each cost between two benchmarks.
    """
    if not beliefs:
        return []
    rng = np.random.default_rng(0)
    means = np.array([belief.mean for belief in beliefs])
    sds = np.array([belief.sd for belief in beliefs])
    rates = np.clip(means + sds * rng.standard_normal((DRAWS, len(means))), 0.0, 1.0)
    known = np.array(costs, dtype=np.float64)
    drawn = known * np.exp(np.array(noise) * rng.standard_normal((DRAWS, *known.shape)))
    losses = np.concatenate([-rates[:, :, None], drawn], axis=-1)
    return [float(chance) for chance in on_front(losses).mean(axis=0)]
