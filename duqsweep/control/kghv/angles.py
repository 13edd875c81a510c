"""Success rates as angles asin √p, in which a binomial's noise does not depend on the rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def angle(successes: Floats, episodes: Floats) -> Floats:
    """The angle of an observed rate, smoothed after Anscombe (1948), between 0 and π/2."""
    found: Floats = np.arcsin(np.sqrt((successes + 0.375) / (episodes + 0.75)))
    return found


def angle_noise(episodes: Floats | float) -> Floats:
    """Variance of `angle` after so many episodes; the true rate hardly matters."""
    return np.asarray(1.0 / (4.0 * np.asarray(episodes, dtype=np.float64) + 2.0))


def rate(angles: Floats) -> Floats:
    """The success rates of angles."""
    found: Floats = np.sin(np.clip(angles, 0.0, np.pi / 2)) ** 2
    return found


def rate_sd(angles: Floats, sd: Floats) -> Floats:
    """Standard deviations of the rates where angles have `sd`, to first order."""
    found: Floats = np.abs(np.sin(2 * np.clip(angles, 0.0, np.pi / 2))) * sd
    return found
