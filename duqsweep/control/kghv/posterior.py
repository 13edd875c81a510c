"""What is believed of the success rates of all trials, and what follows for the front."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.front.pareto import on_front
from duqsweep.control.kghv.angles import rate, rate_sd

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Flags = NDArray[np.bool_]

DRAWS = 1000  # of the rates: a standard error of a probability below 0.016
_JITTER = 1e-9
_SURE = 5.0  # standard deviations: exceeded once in millions


@dataclass(frozen=True, eq=False)
class Posterior:
    """A normal distribution of the angles of all rates, which depend on each other; and costs."""

    angles: Floats  # means (n,)
    covariances: Floats  # (n, n)
    costs: Floats  # logarithms, without the noise of their measures (n, k); nan: not known

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
        return self._drawn(np.arange(len(self.angles)))

    def _drawn(self, places: Places) -> Floats:
        """Success rates of some trials (DRAWS, m)."""
        count = len(places)
        covariances = self.covariances[np.ix_(places, places)]
        factor = np.linalg.cholesky(covariances + _JITTER * np.eye(count))
        noise = np.random.default_rng(0).standard_normal((DRAWS, count))
        return rate(self.angles[places] + noise @ factor.T)

    def front_chances(self, able: Places, costs: Floats, noise: Floats) -> Floats:
        """The probability of trials to be on the front of success rates and costs.

        Args:
            able: Places of the trials that may be on the front (m,).
            costs: Their costs, all minimised, as logarithms (m, k).
            noise: Standard deviation of each cost between two benchmarks (k,).
        """
        chances = np.zeros(len(able))
        some = np.flatnonzero(~self._hopeless(able, costs, noise))
        if len(some):
            rng = np.random.default_rng(1)
            drawn = costs[some] + noise * rng.standard_normal((DRAWS, *costs[some].shape))
            losses = np.concatenate([-self._drawn(able[some])[:, :, None], drawn], axis=-1)
            chances[some] = on_front(losses).mean(axis=0)
        return chances

    def _hopeless(self, able: Places, costs: Floats, noise: Floats) -> Flags:
        """Trials that another beats in everything, by `_SURE` standard deviations in each."""
        angles, covariances = self.angles[able], self.covariances[np.ix_(able, able)]
        variances = np.diag(covariances)
        apart = np.sqrt(np.maximum(variances[:, None] + variances - 2 * covariances, 0.0))
        beats = angles[:, None] - angles[None] > _SURE * apart + _JITTER
        cheaper = costs[:, None] - costs[None] < -_SURE * np.sqrt(2.0) * noise - _JITTER
        found: Flags = (beats & cheaper.all(axis=-1)).any(axis=0)
        return found
