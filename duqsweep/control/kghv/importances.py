"""Which parameters success depends on, and how sure that is, whatever sampler made the trials."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.config.space import Space
from duqsweep.control.front.importance import Importance
from duqsweep.control.kghv.angles import angle, angle_noise, rate
from duqsweep.control.kghv.rates import rate_process
from duqsweep.control.trials.reader import TrialView
from duqsweep.setting import Scalar

Floats = NDArray[np.float64]

POINTS = 500  # of the space, at which success is drawn
DRAWS = 200  # of the posterior
LEVELS = 6  # that a parameter with more values is cut into
LEAST_TRIALS = 8  # that have played: fewer say nothing of parameters
FIT_STEPS = 20
_JITTER = 1e-8


def importances(space: Space, views: Sequence[TrialView]) -> tuple[Importance, ...]:
    """The importance of each parameter, largest first; empty with too few trials.

    A Gaussian process is fitted to the trials (see `Surrogate`), with the noise that their episodes
    have. Each draw of its posterior is a function on random points of the space; how much of its
    variance lies between the values of one parameter is that parameter's share in this draw.

    Args:
        space: Of the sweep.
        views: Its trials.
    """
    played = [
        (point, view.counts)
        for view in views
        if view.counts.ran and (point := space.point_of_trial(view.trial)) is not None
    ]
    if len(played) < LEAST_TRIALS or not space.parameters:
        return ()
    model, encoding = rate_process(space.parameters)
    successes = np.array([counts.successes for _, counts in played], dtype=np.float64)
    episodes = np.array([counts.ran for _, counts in played], dtype=np.float64)
    x = encoding.encode([point for point, _ in played])
    model.fit(x, angle(successes, episodes), angle_noise(episodes), FIT_STEPS)
    rng = random.Random(0)
    points = [space.random_point(rng) for _ in range(POINTS)]
    rates = rate(_drawn(*model.joint(encoding.encode(points))))
    found = [
        _importance(p.key, _shares(rates, _levels([point.get(p.key) for point in points])))
        for p in space.parameters
    ]
    return tuple(sorted(found, key=lambda importance: -importance.share))


def _drawn(means: Floats, covariances: Floats) -> Floats:
    """Draws of a normal distribution (DRAWS, points)."""
    factor = np.linalg.cholesky(covariances + _JITTER * np.eye(len(means)))
    noise = np.random.default_rng(0).standard_normal((DRAWS, len(means)))
    drawn: Floats = means + noise @ factor.T
    return drawn


def _importance(key: str, shares: Floats) -> Importance:
    low, high = np.quantile(shares, [0.05, 0.95])
    mean = float(shares.mean())
    return Importance(key, round(mean, 4), round(float(low), 4), round(float(high), 4))


def _levels(values: Sequence[Scalar | None]) -> NDArray[np.intp]:
    """The level of each value; None, where a condition does not hold, is one of its own."""
    distinct = list(dict.fromkeys(value for value in values if value is not None))
    if len(distinct) > LEVELS and all(isinstance(value, (int, float)) for value in distinct):
        numbers = np.array([np.nan if value is None else float(value) for value in values])
        edges = np.nanquantile(numbers, np.linspace(0, 1, LEVELS + 1)[1:-1])
        found: NDArray[np.intp] = np.where(
            np.isnan(numbers), LEVELS, np.searchsorted(edges, numbers, side="right")
        ).astype(np.intp)
        return found
    places = {value: i for i, value in enumerate(distinct)}
    return np.array([len(distinct) if v is None else places[v] for v in values], dtype=np.intp)


def _shares(rates: Floats, levels: NDArray[np.intp]) -> Floats:
    """Share of the variance between levels, of each draw (draws,); noise of the points removed.

    This is the adjusted correlation ratio (ε²): chance alone gives 0 on average.
    """
    total = rates.var(axis=1) * rates.shape[1]
    within = np.zeros(len(rates))
    names = np.unique(levels)
    for level in names:
        chosen = rates[:, levels == level]
        within += chosen.var(axis=1) * chosen.shape[1]
    error = within / max(rates.shape[1] - len(names), 1)
    between = total - within - (len(names) - 1) * error
    shares: Floats = np.clip(between / np.maximum(total, 1e-12), 0.0, 1.0)
    return shares
