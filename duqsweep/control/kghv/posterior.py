"""What is believed of the success rates of all trials, and what follows for the front."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.front.pareto import on_front
from duqsweep.control.kghv.angles import rate, rate_sd

Floats = NDArray[np.float64]

DRAWS = 2000  # of the rates: a standard error of a probability below 0.012
_JITTER = 1e-9


@dataclass(frozen=True, eq=False)
class Posterior:
    """A normal distribution of the angles of all rates, which depend on each other."""

    angles: Floats  # means (n,)
    covariances: Floats  # (n, n)

    @property
    def means(self) -> Floats:
        """Of the success rates (n,)."""
        return rate(self.angles)

    @property
    def sds(self) -> Floats:
        """Standard deviations of the success rates, to first order (n,)."""
        return rate_sd(self.angles, np.sqrt(np.maximum(np.diag(self.covariances), 0.0)))

    @cached_property
    def draws(self) -> Floats:
        """Success rates (DRAWS, n); the same numbers each time."""
        count = len(self.angles)
        factor = np.linalg.cholesky(self.covariances + _JITTER * np.eye(count))
        noise = np.random.default_rng(0).standard_normal((DRAWS, count))
        return rate(self.angles + noise @ factor.T)

    def front_chances(self, able: NDArray[np.intp], costs: Floats, noise: Floats) -> Floats:
        """The probability of trials to be on the front of success rates and costs.

        Args:
            able: Places of the trials that may be on the front (m,).
            costs: Their costs, all minimised, as logarithms (m, k).
            noise: Standard deviation of each cost between two benchmarks (k,).
        """
        if not len(able):
            return np.zeros(0)
        rng = np.random.default_rng(1)
        drawn = costs + noise * rng.standard_normal((DRAWS, *costs.shape))
        losses = np.concatenate([-self.draws[:, able, None], drawn], axis=-1)
        found: Floats = on_front(losses).mean(axis=0)
        return found
