"""The model of success rates: a Gaussian process of angles, a trend, and the luck of episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.config.parameters import Parameter
from duqsweep.control.kghv.angles import angle, angle_noise
from duqsweep.control.kghv.common_episodes import SHARED, common_luck
from duqsweep.control.kghv.encoding import Encoding
from duqsweep.control.kghv.known import Known
from duqsweep.control.kghv.surrogate import Kernel, Normal, Surrogate

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# The angle of a typical success rate, and how far the mean over a space may lie from it.
_CENTER, _OFFSET = float(np.arcsin(np.sqrt(0.7))), 0.25
# The slope of the angle along the mean logarithm of the costs: what costs more mostly succeeds more
# often, or else nobody would search it.
_TREND: Normal = (0.25, 0.5)
_CERTAIN = 1e-6  # variance of the angle of a trial that failed: it has no success
_UNKNOWN = 1e6  # noise of a trial of which nothing is known yet


def rate_process(parameters: Sequence[Parameter]) -> tuple[Surrogate, Encoding]:
    """The process of success rates' angles over a space, and how points are encoded for it."""
    encoding = Encoding(parameters)
    return Surrogate(Kernel(encoding.columns, _OFFSET), _CENTER), encoding


class RateModel:
    """Angle of a trial = trend along its costs + process over the space.

    What is observed has two kinds of noise: a trial's own, of known variance, and the luck of the
    episodes that it has in common with others (`common_episodes`). The trend is the mean of its
    posterior under the process. A trial outside the space stands for itself.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Nothing is observed yet."""
        self.process, self.encoding = rate_process(parameters)
        self._has_space = bool(parameters)
        self._slope, self._usual = 0.0, 0.0  # of angles along mean costs, and where the trend is 0

    def believe(
        self, known: Sequence[Known], x: Floats, costs: Floats, has_costs: Flags, steps: int
    ) -> tuple[Floats, Floats]:
        """Posterior mean and variance of each trial's angle.

        Args:
            known: All trials (n).
            x: The encoded points of those in the space.
            costs: Of all (n, k).
            has_costs: Which of them are known (n,).
            steps: Of fitting the hyperparameters.
        """
        successes = np.array([trial.successes for trial in known], dtype=np.float64)
        episodes = np.array([trial.episodes for trial in known], dtype=np.float64)
        pending = np.array([trial.pending for trial in known], dtype=np.float64)
        luck = common_luck([trial.blocks for trial in known], angle(successes, episodes))
        seen = angle(successes, episodes) - luck.means
        own = np.array([1 - SHARED if trial.blocks else 1.0 for trial in known])
        noise = np.where(episodes > 0, own * angle_noise(episodes), _UNKNOWN)
        # Episodes that are on their way shrink the variance and leave the mean.
        total = episodes + pending
        noise_then = np.where(total > 0, own * angle_noise(total), _UNKNOWN)
        angles, variances = self._alone(seen, noise, noise_then, np.diag(luck.covariances))
        failed = np.array([trial.has_failed for trial in known], dtype=bool)
        inside = np.array([trial.params is not None for trial in known], dtype=bool)
        if inside.any() and self._has_space:
            x, inside = x[~failed[inside]], inside & ~failed
            common = luck.covariances[np.ix_(inside, inside)]
            trend = self._fit(
                x,
                seen[inside],
                common + np.diag(noise[inside]),
                costs[inside],
                has_costs[inside],
                steps,
            )
            if pending[inside].any():
                share = pending[inside] / np.maximum(total[inside], 1)
                believed, _ = self.process.at_observed()
                mixed = seen[inside] - trend + share * (believed - (seen[inside] - trend))
                self.process.observe(mixed, common + np.diag(noise_then[inside]))
            angles[inside], variances[inside] = self.process.at_observed()
            angles[inside] += trend
        angles[failed], variances[failed] = 0.0, _CERTAIN
        return angles, variances

    def predict(self, x: Floats, costs: Floats) -> tuple[Floats, Floats]:
        """Posterior mean and variance of the angles of encoded points (m, width) of such costs."""
        angles, variances = self.process.predict(x)
        return angles + self._trend(costs), variances

    def covariances(self) -> Floats:
        """Posterior covariances of the angles of the trials in the space that did not fail."""
        return self.process.covariance_at_observed()

    def _alone(
        self, seen: Floats, noise: Floats, noise_then: Floats, luck: Floats
    ) -> tuple[Floats, Floats]:
        """The posterior of trials that say nothing of each other."""
        prior = self.process.prior_variance
        angles = _CENTER + prior / (prior + noise + luck) * (seen - _CENTER)
        return angles, prior * (noise_then + luck) / (prior + noise_then + luck)

    def _fit(
        self, x: Floats, seen: Floats, noise: Floats, costs: Floats, has_costs: Flags, steps: int
    ) -> Floats:
        """Take the observations; returns the trend, which depends on the hyperparameters."""
        trend = self._learnt_trend(x, seen, noise, costs, has_costs)
        self.process.fit(x, seen - trend, noise, steps)
        if steps:
            trend = self._learnt_trend(x, seen, noise, costs, has_costs)
            self.process.observe(seen - trend, noise)
        return trend

    def _learnt_trend(
        self, x: Floats, seen: Floats, noise: Floats, costs: Floats, has_costs: Flags
    ) -> Floats:
        if not has_costs.any():
            self._slope = 0.0
            return np.zeros(len(x))
        self._slope, self._usual = 1.0, float(costs[has_costs].mean())
        along = np.where(has_costs, self._trend(costs), 0.0)
        self._slope = self.process.slope(x, seen, noise, along, _TREND)
        return self._slope * along

    def _trend(self, costs: Floats) -> Floats:
        """By how much angles are higher because of the costs (m, k) → (m,)."""
        found: Floats = self._slope * (costs.mean(axis=1) - self._usual)
        return found
