"""A cost of every point of a space: what a cost model says, corrected by what was measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.config.parameters import Params
from duqsweep.control.kghv.encoding import Column, Encoding
from duqsweep.control.kghv.surrogate import Kernel, Surrogate

Floats = NDArray[np.float64]
# Logarithms of all costs of points (n, k) by arithmetic; nan for a cost that has no model, and for
# a point that is impossible.
Modelled = Callable[[Sequence[Params]], Floats]

COST_NOISE = 1e-3  # variance of a measured logarithm
_OFFSET = 1.0  # prior variance of a space's mean cost, in squared logarithms
# Of v1 to v3, see `Kernel`: a point costs what its settings cost. What belongs to single points is
# noise of their measures rather.
_SCALES = (0.2, 0.05, 0.0001)
_POINTS = 150  # of the space, at which the cost model is asked, once
_LEAST_POINTS = 20  # fewer possible ones say nothing
_FIT_STEPS = 20
_DOUBT = 3.84  # by so much the slope must explain the trials better: a test at 5 %
_TRUST = 0.5  # prior standard deviation of the slope of measured on modelled logarithms, about 1


def learn_cost_model(
    encoding: Encoding,
    random_point: Callable[[random.Random], Params],
    modelled: Modelled,
    costs: int,
) -> list[Surrogate | None]:
    """What the cost model says of each cost, learnt from `_POINTS` points, so that asking is cheap.

    None for a cost that it does not model.
    """
    rng = random.Random(0)
    points = [random_point(rng) for _ in range(_POINTS)]
    x, said = encoding.encode(points), modelled(points)
    return [_learnt(encoding.columns, x, said[:, k]) for k in range(costs)]


def _learnt(columns: Sequence[Column], x: Floats, said: Floats) -> Surrogate | None:
    known = np.isfinite(said)
    if known.sum() < _LEAST_POINTS:
        return None
    found = Surrogate(Kernel(columns, _OFFSET), float(said[known].mean()))
    found.fit(x[known], said[known], np.full(int(known.sum()), COST_NOISE / 10), _FIT_STEPS)
    return found


class CostSurrogate:
    """The logarithm of one cost: slope · modelled + a Gaussian process.

    The slope is about 1 beforehand, and what measured trials say it is then: their generalised
    least squares under the process. It is 0, the process alone, where no cost model is, or where
    the trials are explained better without it.
    """

    def __init__(self, columns: Sequence[Column], noise: float = 0.0) -> None:
        """Nothing is known yet.

        Args:
            columns: Of the space.
            noise: Relative standard deviation that the cost probably has between two measures of
                one point; what it has in this sweep is fitted. 0: a measure is exact.
        """
        kernel = Kernel(columns, _OFFSET, _SCALES)
        self.process = Surrogate(kernel, 0.0, noise**2 if noise else None)
        self._known_noise = 0.0 if noise else COST_NOISE
        self.modelled: Surrogate | None = None
        self._kernel = Kernel(columns, _OFFSET)
        self._center, self._slope, self._said = 0.0, 0.0, 0.0

    def fit(self, x: Floats, y: Floats, steps: int) -> None:
        """Take what was measured.

        Args:
            x: Encoded points (n, width), n ≥ 1.
            y: Logarithms of their costs (n,).
            steps: Of fitting the process's hyperparameters.
        """
        self._center, self._slope = float(y.mean()), 0.0
        if self.modelled is not None:
            said, _ = self.modelled.predict(x)
            self._said = float(said.mean())
            self._slope = self._slope_of(x, y - self._center, said - self._said)
        self.process.fit(x, y - self._line(x), np.full(len(y), self._known_noise), steps)

    def believed(self, x: Floats, measured: Floats) -> Floats:
        """The logarithms without the noise of their measures, of the points that `fit` was given.

        Args:
            x: As in `fit` (n, width).
            measured: As in `fit` (n,).
        """
        if self._known_noise:
            return measured
        return self.process.at_observed()[0] + self._line(x)

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Posterior mean and variance at encoded points (m, width)."""
        mean, variance = self.process.predict(x)
        return mean + self._line(x), variance

    def _slope_of(self, x: Floats, measured: Floats, said: Floats) -> float:
        """The slope of measured on modelled logarithms (n,); 0 where there may be none."""
        covariance = self._kernel(self._kernel.start(), x, x) + COST_NOISE * np.eye(len(x))
        of_said, of_measured = np.linalg.solve(covariance, np.column_stack([said, measured])).T
        trust = _TRUST**-2
        slope = float((said @ of_measured + trust) / (said @ of_said + trust))
        without = float(measured @ of_measured)
        within = without - 2 * slope * float(said @ of_measured) + slope**2 * float(said @ of_said)
        return slope if within + trust * (slope - 1) ** 2 + _DOUBT < without else 0.0

    def _line(self, x: Floats) -> Floats:
        if self.modelled is None or not self._slope:
            return np.full(len(x), self._center)
        found: Floats = self._center + self._slope * (self.modelled.predict(x)[0] - self._said)
        return found
