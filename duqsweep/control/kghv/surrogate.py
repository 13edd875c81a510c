"""A Gaussian process over trials with known noise, on a kernel built from the search space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from duqsweep.control.kghv.encoding import Column

Floats = NDArray[np.float64]
Normal = tuple[float, float]  # mean and standard deviation

JITTER = 1e-8
MOST_LEVELS = 20  # of a parameter that is computed with its distinct values, not point by point
FIT_TRIALS = 100  # that hyperparameters are fitted to; the time of a fit grows with their square
# Priors on the logarithms of the hyperparameters: mean and standard deviation.
_LENGTH: Normal = (float(np.log(0.8)), 0.7)  # an encoded parameter spans at most 1
_SCALE_SD = 2.0  # of the variances v1 to v3, see `Kernel`
_NOISE_SD = 1.5  # of a variance of noise that is fitted


@dataclass(frozen=True)
class Kernel:
    """constant + main effects + pairs + all columns together.

    With k_i a squared-exponential kernel of column i alone:
    k = offset + v1 · mean_i k_i + v2 · mean_{i<j} k_i k_j + v3 · Π_i k_i.
    The terms let the process learn effects that add up, interactions of two settings, and points
    that behave like nothing else. In the means every group weighs the same: a column has the weight
    w_i of one divided by the groups and by the columns of its group, a pair w_i w_j.
    """

    columns: Sequence[Column]
    offset: float  # prior variance of the mean over the space; not fitted
    scales: tuple[float, float, float] = (0.2, 0.05, 0.01)  # of v1, v2, v3: medians of the prior
    groups: tuple[str, ...] = field(init=False)
    _group_of: NDArray[np.int64] = field(init=False)
    _weights: Floats = field(init=False)

    def __post_init__(self) -> None:
        groups = tuple(dict.fromkeys(column.group for column in self.columns))
        object.__setattr__(self, "groups", groups)
        places = np.array([groups.index(column.group) for column in self.columns], dtype=int)
        object.__setattr__(self, "_group_of", places)
        object.__setattr__(self, "_weights", 1.0 / (np.bincount(places)[places] * len(groups)))

    def start(self) -> Floats:
        """The mode of the prior: logarithms of a length per group, then of v1, v2, v3."""
        return np.concatenate([np.full(len(self.groups), _LENGTH[0]), np.log(self.scales)])

    def log_prior(self, theta: Floats) -> tuple[float, Floats]:
        """Log density of the hyperparameters, up to a constant, and its gradient."""
        mean = self.start()
        sd = np.concatenate([np.full(len(self.groups), _LENGTH[1]), np.full(3, _SCALE_SD)])
        z = (theta - mean) / sd
        return float(-0.5 * z @ z), -z / sd

    def __call__(self, theta: Floats, a: Floats, b: Floats) -> Floats:
        """Covariances of points (a, width) and (b, width) → (a, b)."""
        total, squares, exponents = np.zeros((3, len(a), len(b)))
        lengths = np.exp(theta[self._group_of])
        levels = Levels(self.columns, np.concatenate([a, b]))
        if len(levels.columns):
            left, right = levels.one_hot[: len(a)], levels.one_hot[len(a) :].T
            scaled = -0.5 * levels.distances / lengths[levels.columns][:, None] ** 2
            parts = np.where(levels.same, np.exp(scaled), 0.0)
            parts *= self._weights[levels.columns][:, None]
            total += left @ parts @ right
            squares += left @ np.square(parts) @ right
            exponents += left @ scaled @ right
        for i in levels.left_out:
            span = self.columns[i].span
            exponent = _squared_distance(a[:, span], b[:, span])
            exponent *= -0.5 / lengths[i] ** 2
            exponents += exponent
            np.exp(exponent, out=exponent)
            exponent *= self._weights[i]
            total += exponent
            squares += np.square(exponent, out=exponent)
        return self._mix(theta, total, squares, np.exp(exponents, out=exponents))

    def levels(self, x: Floats) -> Levels:
        """The values of all parameters of points (n, width), for `of_levels`."""
        return Levels(self.columns, x, most=len(x))

    def _mix(self, theta: Floats, total: Floats, squares: Floats, every: Floats) -> Floats:
        one, two = self._orders(total, squares)
        v1, v2, v3 = np.exp(theta[-3:])
        covariances: Floats = self.offset + v1 * one + v2 * two + v3 * every
        return covariances

    def _orders(self, total: Floats, squares: Floats) -> tuple[Floats, Floats]:
        """Mean of the parts and of the products of two, from Σ w k and Σ w² k²."""
        return total, (total**2 - squares) / self._pairs_weight()

    def _pairs_weight(self) -> float:
        """Σ_{i≠j} w_i w_j; with a single column there is no pair, and any number will do."""
        return max(1.0 - float(np.square(self._weights).sum()), 1e-9)

    def diagonal(self, theta: Floats) -> float:
        """The prior variance of any point."""
        v1, v2, v3 = np.exp(theta[-3:])
        return float(self.offset + v1 + (v2 if len(self.columns) > 1 else 0.0) + v3)

    def of_levels(self, theta: Floats, levels: Levels) -> tuple[Floats, Callable[[Floats], Floats]]:
        """Covariances of the points of `levels` with each other, and how they change.

        Args:
            theta: The hyperparameters.
            levels: Of the points (n), with no column left out.

        Returns:
            The covariances (n, n); and a function of symmetric weights (n, n), which gives the sum
            of the weights times the derivative of the covariances by each of `theta`.
        """
        rates = np.exp(-2 * theta[self._group_of])[levels.columns][:, None]  # 1 / length²
        parts = np.where(levels.same, np.exp(-0.5 * rates * levels.distances), 0.0)
        squared, exponents = np.square(parts), -0.5 * rates * levels.distances
        left, right = levels.one_hot, levels.one_hot.T
        own = self._weights[levels.columns][:, None]
        total, squares = left @ (own * parts) @ right, left @ (own**2 * squared) @ right
        every = np.exp(left @ exponents @ right)
        one, two = self._orders(total, squares)
        v1, v2, v3 = np.exp(theta[-3:])
        by_pair = 2 * v2 / self._pairs_weight()
        groups = self._group_of[levels.columns]

        def slopes(weights: Floats) -> Floats:
            # d part / d log(length) = part · distance / length², and so on for squares and product.
            plain = right @ weights @ left
            by_total, by_every = right @ (weights * total) @ left, right @ (weights * every) @ left
            of_parts = own * parts * (v1 * plain + by_pair * by_total)
            of_squares = own**2 * squared * (by_pair * plain)
            inner = rates * levels.distances * (of_parts - of_squares + v3 * by_every)
            found = np.zeros_like(theta)
            np.add.at(found, groups, inner.sum(axis=1))
            found[-3:] = [
                v1 * (weights * one).sum(),
                v2 * (weights * two).sum(),
                v3 * (weights * every).sum(),
            ]
            return found

        return self._mix(theta, total, squares, every), slopes


class Levels:
    """Points by the distinct values of their parameters, of which most parameters have few.

    Sums over parameters of a function of two values are then products of small matrices.
    """

    def __init__(self, columns: Sequence[Column], x: Floats, most: int = MOST_LEVELS) -> None:
        """Look up the values.

        Args:
            columns: One per parameter.
            x: Encoded points (n, width).
            most: Parameters with more distinct values are left out.
        """
        self.left_out: list[int] = []  # places of columns
        codes: list[NDArray[np.intp]] = []
        tables: list[Floats] = []
        owners: list[int] = []
        for i, column in enumerate(columns):
            values = x[:, column.span]
            sums = values @ _weights_to_tell_apart(values.shape[1])
            _, first, code = np.unique(sums, return_index=True, return_inverse=True)
            if len(first) > most:
                self.left_out.append(i)
                continue
            codes.append(code + len(owners))
            tables.append(_squared_distance(values[first], values[first]))
            owners += [i] * len(first)
        self.columns = np.array(owners, dtype=int)  # of each level, its column's place (levels,)
        self.one_hot = np.zeros((len(x), len(owners)))
        for code in codes:
            self.one_hot[np.arange(len(x)), code] = 1.0
        # Squared distances of two levels of one parameter; 0 for those of different ones.
        self.distances = block_diag(*tables) if tables else np.zeros((0, 0))
        self.same = self.columns[:, None] == self.columns


@cache
def _weights_to_tell_apart(width: int) -> Floats:
    """Values that differ have different sums with these weights: numbers, flags, and shares."""
    return np.random.default_rng(0).standard_normal(width)


def _squared_distance(a: Floats, b: Floats) -> Floats:
    """Of points (a, width) and (b, width) → (a, b)."""
    if a.shape[1] == 1:
        return np.square(a - b.T)
    squared: Floats = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squared, 0.0, out=squared)


class Surrogate:
    """A Gaussian process whose observations have noise of known variance."""

    def __init__(self, kernel: Kernel, center: float, noise: float | None = None) -> None:
        """Nothing is observed yet.

        Args:
            kernel: Its offset says how far the true mean may lie from `center`.
            center: The prior mean.
            noise: Variance that all observations probably have beside what is known of each; it is
                fitted with the hyperparameters. None: there is none.
        """
        self._kernel = kernel
        self._center = center
        self._noise = noise
        self._size = len(kernel.start())
        self.theta = self.start()
        self._x: Floats = np.zeros((0, 0))
        self._prior: Floats = np.zeros((0, 0))  # covariances of `_x`

    @property
    def prior_variance(self) -> float:
        """Of any one value, before observations."""
        return self._kernel.diagonal(self._of_kernel)

    @property
    def common_noise(self) -> float:
        """The variance of all observations that was fitted."""
        return self._common(self.theta)

    @property
    def _of_kernel(self) -> Floats:
        return self.theta[: self._size]

    def _common(self, theta: Floats) -> float:
        return 0.0 if self._noise is None else float(np.exp(theta[-1]))

    def start(self) -> Floats:
        """The mode of the hyperparameters' prior."""
        start = self._kernel.start()
        return start if self._noise is None else np.append(start, np.log(self._noise))

    def fit(self, x: Floats, y: Floats, noise: Floats, steps: int) -> None:
        """Take the observations, after at most `steps` steps of fitting the hyperparameters.

        Args:
            x: Encoded points (n, width).
            y: What was observed (n,).
            noise: Variance that is known of each (n,), or covariances (n, n).
            steps: Steps of L-BFGS from the hyperparameters so far; 0 leaves them.
        """
        if steps:
            start = self.start()
            # The least noisy ones say most; among equals the newest, which lie near the front.
            variances = noise if noise.ndim == 1 else np.diag(noise)
            some = np.lexsort((-np.arange(len(y)), variances))[:FIT_TRIALS]
            of_some = noise[some] if noise.ndim == 1 else noise[np.ix_(some, some)]
            found = minimize(
                self._loss,
                self.theta,
                args=(self._kernel.levels(x[some]), y[some] - self._center, of_some),
                jac=True,
                method="L-BFGS-B",
                bounds=[(value - 4.0, value + 4.0) for value in start],
                options={"maxiter": steps},
            )
            self.theta = found.x
        self._x, self._prior = x, self._kernel(self._of_kernel, x, x)
        self.observe(y, noise)

    def observe(self, y: Floats, noise: Floats) -> None:
        """Take other observations of the points that `fit` was given last."""
        self._factor = _noisy_factor(self._prior.copy(), noise, self.common_noise)
        self._weights = cho_solve((self._factor, True), y - self._center)

    def _loss(
        self, theta: Floats, levels: Levels, residual: Floats, noise: Floats
    ) -> tuple[float, Floats]:
        """Negative log posterior of the hyperparameters and its gradient."""
        covariance, slopes = self._kernel.of_levels(theta[: self._size], levels)
        common = self._common(theta)
        factor = _noisy_factor(covariance, noise, common)
        weights = cho_solve((factor, True), residual)
        inverse = cho_solve((factor, True), np.eye(len(residual)))
        prior, slope = self._kernel.log_prior(theta[: self._size])
        value = 0.5 * residual @ weights + np.log(np.diag(factor)).sum() - prior
        outer = 0.5 * (inverse - np.outer(weights, weights))
        found = slopes(outer) - slope
        if self._noise is not None:
            z = (theta[-1] - np.log(self._noise)) / _NOISE_SD
            value += 0.5 * z * z
            found = np.append(found, common * np.trace(outer) + z / _NOISE_SD)
        return float(value), found

    def slope(self, x: Floats, y: Floats, noise: Floats, along: Floats, prior: Normal) -> float:
        """How much the value changes with `along` (n,), beside what the process says.

        The mean given the observations, which are as in `fit`, and the slope's prior.
        """
        factor = _noisy_factor(self._kernel(self._of_kernel, x, x), noise, self.common_noise)
        explained = cho_solve((factor, True), np.column_stack([along, y - self._center]))
        mean, sd = prior
        found = (along @ explained[:, 1] + mean / sd**2) / (along @ explained[:, 0] + 1 / sd**2)
        return float(found)

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Posterior mean and variance of the noiseless value at encoded points (m, width)."""
        return self._posterior(self._kernel(self._of_kernel, self._x, x))

    def joint(self, x: Floats) -> tuple[Floats, Floats]:
        """Posterior means (m,) and covariances (m, m) of the noiseless values at encoded points."""
        cross = self._kernel(self._of_kernel, self._x, x)
        explained = solve_triangular(self._factor, cross, lower=True)
        mean = self._center + cross.T @ self._weights
        return mean, self._kernel(self._of_kernel, x, x) - explained.T @ explained

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
        variance = self.prior_variance - (explained**2).sum(axis=0)
        return mean, np.maximum(variance, 1e-12)


def _noisy_factor(covariance: Floats, noise: Floats, common: float) -> Floats:
    """Cholesky's factor of the covariances of noisy observations; changes `covariance`."""
    if noise.ndim == 2:
        covariance += noise
    covariance[np.diag_indices(len(covariance))] += (
        common + JITTER + (noise if noise.ndim == 1 else 0.0)
    )
    factor: Floats = cholesky(covariance, lower=True)
    return factor
