"""How sure a success rate is: its intervals, and the odds that it is at least another's."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from duqsweep.errors import SpecError


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate; (0, 1) without episodes."""
    _check_counts(successes, episodes)
    if episodes == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    rate = successes / episodes
    centre = (rate + z2 / (2 * episodes)) / (1 + z2 / episodes)
    variance = rate * (1 - rate) / episodes + z2 / (4 * episodes**2)
    half = math.sqrt(z2 * variance) / (1 + z2 / episodes)
    # At the ends the bound is the rate itself; rounding would miss it.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == episodes else centre + half
    return low, high


def clopper_pearson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a success rate: it covers at least as often as it says."""
    _check_counts(successes, episodes)
    tail = (1 - confidence) / 2
    low, high = 0.0, 1.0
    if successes > 0:
        low = _bisect(lambda p: _at_least(successes, episodes, p) < tail)
    if successes < episodes:
        failures = episodes - successes
        high = _bisect(lambda p: _at_least(failures, episodes, 1 - p) >= tail)
    return low, high


def probability_at_least(
    successes: int, episodes: int, other_successes: int, other_episodes: int
) -> float:
    """The probability that one true rate is at least another's, from uniform priors.

    Sums the closed form for two Beta posteriors with whole parameters, unpaired.
    """
    _check_counts(successes, episodes)
    _check_counts(other_successes, other_episodes)
    a, b = other_successes + 1, other_episodes - other_successes + 1
    c, d = successes + 1, episodes - successes + 1
    terms = (
        math.exp(_log_beta(a + i, b + d) - math.log(d + i) - _log_beta(1 + i, d) - _log_beta(a, b))
        for i in range(c)
    )
    return min(1.0, sum(terms))


def _check_counts(successes: int, episodes: int) -> None:
    if not 0 <= successes <= episodes:
        raise SpecError(f"0 <= successes <= episodes must hold, got {successes} of {episodes}")


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _at_least(count: int, episodes: int, p: float) -> float:
    """P(X >= count) for X binomial."""
    if p <= 0 or p >= 1:
        return float(p >= 1 or count == 0)
    log_p, log_q = math.log(p), math.log1p(-p)
    total = math.lgamma(episodes + 1)
    return math.fsum(
        math.exp(
            total
            - math.lgamma(k + 1)
            - math.lgamma(episodes - k + 1)
            + k * log_p
            + (episodes - k) * log_q
        )
        for k in range(count, episodes + 1)
    )


def _bisect(is_below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
