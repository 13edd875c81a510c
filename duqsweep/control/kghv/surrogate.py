"""A Gaussian process over trials with known noise, on a kernel built from the search space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from duqsweep.control.kghv.encoding import Column

Floats = NDArray[np.float64]

JITTER = 1e-8
FIT_TRIALS = 100  # that hyperparameters are fitted to; the time of a fit grows with their square
# Priors on the logarithms of the hyperparameters: mean and standard deviation.
_LENGTH = (np.log(0.8), 0.7)  # an encoded parameter spans at most 1
_SCALES = (np.log([0.05, 0.03, 0.02]), np.array([2.0, 2.0, 2.0]))  # variances, see `Kernel`


@dataclass(frozen=True)
class Kernel:
    """constant + main effects + pairs + all parameters together.

    With k_i a squared-exponential kernel of parameter i alone, D parameters:
    k = offset + v1 · mean_i k_i + v2 · mean_{i<j} k_i k_j + v3 · Π_i k_i.
    The terms let the process learn effects that add up, interactions of two settings, and points
    that behave like nothing else.
    """

    columns: Sequence[Column]
    offset: float  # prior variance of the mean over the space; not fitted
    groups: tuple[str, ...] = field(init=False)
    _group_of: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        groups = tuple(dict.fromkeys(column.group for column in self.columns))
        object.__setattr__(self, "groups", groups)
        places = np.array([groups.index(column.group) for column in self.columns], dtype=int)
        object.__setattr__(self, "_group_of", places)

    def start(self) -> Floats:
        """The mode of the prior: logarithms of a length per group, then of v1, v2, v3."""
        return np.concatenate([np.full(len(self.groups), _LENGTH[0]), _SCALES[0]])

    def log_prior(self, theta: Floats) -> tuple[float, Floats]:
        """Log density of the hyperparameters, up to a constant, and its gradient."""
        mean = self.start()
        sd = np.concatenate([np.full(len(self.groups), _LENGTH[1]), _SCALES[1]])
        z = (theta - mean) / sd
        return float(-0.5 * z @ z), -z / sd

    def distances(self, x: Floats) -> Floats:
        """Squared distance per parameter of each two points: (n, width) → (parameters, n(n-1)/2).

        Pairs are in the order of `numpy.triu_indices(n, 1)`.
        """
        above = np.triu_indices(len(x), 1)
        found = np.empty((len(self.columns), len(above[0])))
        for i, column in enumerate(self.columns):
            found[i] = _squared_distance(x[:, column.span], x[:, column.span])[above]
        return found

    def parts(self, theta: Floats, distances: Floats) -> Floats:
        """The kernel of each parameter alone: (parameters, pairs)."""
        scales = -0.5 / np.exp(theta[self._group_of]) ** 2
        parts: Floats = np.exp(distances * scales[:, None])
        return parts

    def __call__(self, theta: Floats, a: Floats, b: Floats) -> Floats:
        """Covariances of points (a, width) and (b, width) → (a, b)."""
        lengths = np.exp(theta[self._group_of])
        total, squares = np.zeros((2, len(a), len(b)))
        every = np.ones((len(a), len(b)))
        # One parameter after the other: what is worked on stays in the processor's cache.
        for column, length in zip(self.columns, lengths, strict=True):
            part = _squared_distance(a[:, column.span], b[:, column.span])
            part *= -0.5 / length**2
            np.exp(part, out=part)
            total += part
            every *= part
            squares += np.square(part, out=part)
        return self._mix(theta, total, squares, every)

    def _mix(self, theta: Floats, total: Floats, squares: Floats, every: Floats) -> Floats:
        one, two = self._orders(total, squares)
        v1, v2, v3 = np.exp(theta[-3:])
        covariances: Floats = self.offset + v1 * one + v2 * two + v3 * every
        return covariances

    def _orders(self, total: Floats, squares: Floats) -> tuple[Floats, Floats]:
        """Mean of the parts, and mean of the products of two."""
        count = len(self.columns)
        return total / count, (total**2 - squares) / max(count * (count - 1), 1)

    def diagonal(self, theta: Floats) -> float:
        """The prior variance of any point."""
        v1, v2, v3 = np.exp(theta[-3:])
        return float(self.offset + v1 + (v2 if len(self.columns) > 1 else 0.0) + v3)

    def of_parts(self, theta: Floats, parts: Floats, count: int) -> Floats:
        """Covariances (count, count) from `parts` of all pairs of so many points."""
        squares = np.square(parts).sum(axis=0)
        mixed = self._mix(theta, parts.sum(axis=0), squares, parts.prod(axis=0))
        covariances = np.zeros((count, count))
        covariances[np.triu_indices(count, 1)] = mixed
        covariances += covariances.T
        covariances[np.diag_indices(count)] = self.diagonal(theta)
        return covariances

    def gradients(self, theta: Floats, distances: Floats, parts: Floats, weights: Floats) -> Floats:
        """Sum of symmetric `weights` (n, n) times the derivative of the covariances by `theta`.

        Args:
            theta: The hyperparameters.
            distances: Of all pairs of the points.
            parts: Of these distances at `theta`.
            weights: One per covariance.
        """
        count = len(parts)
        total, every = parts.sum(axis=0), parts.prod(axis=0)
        one, two = self._orders(total, np.square(parts).sum(axis=0))
        v1, v2, v3 = np.exp(theta[-3:])
        pairs = max(count * (count - 1) / 2, 1)
        both = 2 * weights[np.triu_indices(len(weights), 1)]
        # d part / d log(length) = part · distance / length²
        slopes = distances * both
        of_parts = slopes * parts
        inner = (of_parts * (v1 / count + v2 / pairs * (total - parts))).sum(axis=1)
        inner += v3 * (slopes @ every)
        inner /= np.exp(theta[self._group_of]) ** 2
        found = np.zeros_like(theta)
        np.add.at(found, self._group_of, inner)
        own = np.trace(weights)  # a point's covariance with itself: all parts are 1
        found[-3:] = [
            v1 * (both @ one + own),
            v2 * (both @ two + (own if count > 1 else 0.0)),
            v3 * (both @ every + own),
        ]
        return found


def _squared_distance(a: Floats, b: Floats) -> Floats:
    """Of points (a, width) and (b, width) → (a, b)."""
    if a.shape[1] == 1:
        return np.square(a - b.T)
    squared: Floats = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squared, 0.0, out=squared)


class Surrogate:
    """A Gaussian process whose observations have noise of known variance."""

    def __init__(self, kernel: Kernel, center: float) -> None:
        """`center` is the prior mean; the kernel's offset says how far the true mean may lie."""
        self._kernel = kernel
        self._center = center
        self.theta = kernel.start()
        self._x: Floats = np.zeros((0, 0))
        self._prior: Floats = np.zeros((0, 0))  # covariances of `_x`
        self._prior_theta = self.theta

    @property
    def prior_variance(self) -> float:
        """Of any one value, before observations."""
        return self._kernel.diagonal(self.theta)

    def fit(self, x: Floats, y: Floats, noise: Floats, steps: int) -> None:
        """Take the observations, after at most `steps` steps of fitting the hyperparameters.

        Args:
            x: Encoded points (n, width).
            y: What was observed (n,).
            noise: Variance of each (n,).
            steps: Steps of L-BFGS from the hyperparameters so far; 0 leaves them.
        """
        if steps:
            start = self._kernel.start()
            # The least noisy ones say most; among equals the newest, which lie near the front.
            some = np.lexsort((-np.arange(len(y)), noise))[:FIT_TRIALS]
            found = minimize(
                self._loss,
                self.theta,
                args=(self._kernel.distances(x[some]), y[some] - self._center, noise[some]),
                jac=True,
                method="L-BFGS-B",
                bounds=[(value - 4.0, value + 4.0) for value in start],
                options={"maxiter": steps},
            )
            self.theta = found.x
        self._prior = self._covariances(x)
        self._x, self._prior_theta = x, self.theta
        self.observe(y, noise)

    def _covariances(self, x: Floats) -> Floats:
        """Prior covariances of points; only those of new ones are computed."""
        same = 0
        if self._x.shape[1:] == x.shape[1:] and np.array_equal(self.theta, self._prior_theta):
            most = min(len(x), len(self._x))
            differ = (x[:most] != self._x[:most]).any(axis=1)
            same = int(differ.argmax()) if differ.any() else most
        new = self._kernel(self.theta, x, x[same:])
        return np.block([[self._prior[:same, :same], new[:same]], [new[:same].T, new[same:]]])

    def observe(self, y: Floats, noise: Floats) -> None:
        """Take other observations of the points that `fit` was given last."""
        covariance = self._prior.copy()
        covariance[np.diag_indices(len(y))] += noise + JITTER
        self._factor = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._factor, True), y - self._center)

    def _loss(
        self, theta: Floats, distances: Floats, residual: Floats, noise: Floats
    ) -> tuple[float, Floats]:
        """Negative log posterior of the hyperparameters and its gradient."""
        parts = self._kernel.parts(theta, distances)
        covariance = self._kernel.of_parts(theta, parts, len(residual))
        covariance[np.diag_indices(len(residual))] += noise + JITTER
        factor = cholesky(covariance, lower=True)
        weights = cho_solve((factor, True), residual)
        inverse = cho_solve((factor, True), np.eye(len(residual)))
        prior, slope = self._kernel.log_prior(theta)
        value = 0.5 * residual @ weights + np.log(np.diag(factor)).sum() - prior
        outer = 0.5 * (inverse - np.outer(weights, weights))
        return float(value), self._kernel.gradients(theta, distances, parts, outer) - slope

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Posterior mean and variance of the noiseless value at encoded points (m, width)."""
        return self._posterior(self._kernel(self.theta, self._x, x))

    def joint(self, x: Floats) -> tuple[Floats, Floats]:
        """Posterior means (m,) and covariances (m, m) of the noiseless values at encoded points."""
        cross = self._kernel(self.theta, self._x, x)
        explained = solve_triangular(self._factor, cross, lower=True)
        mean = self._center + cross.T @ self._weights
        return mean, self._kernel(self.theta, x, x) - explained.T @ explained

    def at_observed(self) -> tuple[Floats, Floats]:
        """The same at the points that were observed."""
        return self._posterior(self._prior)

    def covariance_at_observed(self) -> Floats:
        """Posterior covariances of the noiseless values at the points that were observed (n, n)."""
        explained = solve_triangular(self._factor, self._prior, lower=True)
        covariances: Floats = self._prior - explained.T @ explained
        return covariances

    def _posterior(self, cross: Floats) -> tuple[Floats, Floats]:
        """From the covariances of observed and other points (n, m)."""
        mean = self._center + cross.T @ self._weights
        explained = solve_triangular(self._factor, cross, lower=True)
        variance = self._kernel.diagonal(self.theta) - (explained**2).sum(axis=0)
        return mean, np.maximum(variance, 1e-12)
