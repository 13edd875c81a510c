"""How states and actions are scaled, by openpi's formulas and by LeRobot's.

Both write them in several ways; all are one factor and one shift per value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import ConfigError, SpecError

Stats = Mapping[str, NDArray[np.float64]]  # "mean", "std", "q01", "q99" → one number per value

OPENPI_EPS = 1e-6
# Numbers that overflow become infinite, and `Affine` refuses those.
_quiet = np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True)
class Affine:
    """normalised = (raw - centre) / spread, value by value."""

    centre: tuple[float, ...]
    spread: tuple[float, ...]  # 0: the value never changed where the statistics were taken

    def __post_init__(self) -> None:
        for i, (centre, spread) in enumerate(zip(self.centre, self.spread, strict=True)):
            if not math.isfinite(centre) or not 0 <= spread < math.inf:
                raise SpecError(
                    "normalisation needs finite numbers and no negative spread, got centre "
                    f"{centre:g} and spread {spread:g} for value {i}"
                )

    def normalise(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., n) in the simulator's units → about [-1, 1], or units of deviation."""
        return np.asarray((raw - np.array(self.centre)) / np.array(self.spread))

    def denormalise(self, normalised: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse."""
        return np.asarray(normalised * np.array(self.spread) + np.array(self.centre))


@_quiet
def openpi_affine(stats: Stats, count: int, quantiles: bool) -> Affine:
    """How openpi scales states and actions.

    Args:
        stats: Of states or of actions; what is longer than `count` was padding.
        count: Values of the simulator.
        quantiles: From q01 and q99, else from mean and std.

    Source: openpi, src/openpi/transforms.py, Normalize and Unnormalize.
    """
    if quantiles:
        q01, q99 = _values(stats, ("q01", "q99"), count)
        return _between(q01, q99 - q01 + OPENPI_EPS)
    mean, std = _values(stats, ("mean", "std"), count)
    return _affine(mean, std + OPENPI_EPS)


@_quiet
def lerobot_affine(stats: Stats, count: int, mode: str, eps: float, inverse: bool) -> Affine:
    """How LeRobot scales them.

    Args:
        stats: Of states or of actions.
        count: Values of the simulator.
        mode: "QUANTILES" or "MEAN_STD".
        eps: Of the processor step; stands in for a zero.
        inverse: For actions, which are scaled back: their spread is the bare standard deviation.

    Source: lerobot 0.6.1, processor/normalize_processor.py, _apply_transform.
    """
    if mode == "QUANTILES":
        q01, q99 = _values(stats, ("q01", "q99"), count)
        return _between(q01, np.where(q99 == q01, eps, q99 - q01))
    if mode == "MEAN_STD":
        mean, std = _values(stats, ("mean", "std"), count)
        return _affine(mean, std if inverse else std + eps)
    raise ConfigError(f"normalisation must be QUANTILES or MEAN_STD, got {mode[:80]!r}")


def _values(stats: Stats, names: tuple[str, str], count: int) -> list[NDArray[np.float64]]:
    for name in names:
        if name not in stats:
            raise ConfigError(f"there is no {name!r}, only {sorted(stats)}")
        if stats[name].ndim != 1 or len(stats[name]) < count:
            raise ConfigError(f"{name!r} must hold {count} values, got shape {stats[name].shape}")
    return [stats[name][:count] for name in names]


def _between(low: NDArray[np.float64], width: NDArray[np.float64]) -> Affine:
    """Maps low to -1 and low + width to 1."""
    return _affine(low + width / 2, width / 2)


def _affine(centre: NDArray[np.float64], spread: NDArray[np.float64]) -> Affine:
    return Affine(tuple(centre.tolist()), tuple(spread.tolist()))
