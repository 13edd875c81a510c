"""How sure a success rate is: its intervals, and the odds that it is at least another's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from statistics import NormalDist

from duqsweep.errors import SpecError


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate; (0, 1) without episodes."""
    _check_counts(successes, episodes)
    if episodes == 0:
        return 0.0, 1.0
    return _score_interval(
        successes / episodes, episodes, NormalDist().inv_cdf((1 + confidence) / 2)
    )


def clustered_by_task(
    counts: Sequence[tuple[int, int]], confidence: float = 0.95
) -> tuple[float, float] | None:
    """The interval of the success rate that other tasks of the same kind would have.

    Outcomes are more alike within a task than between tasks, so that n episodes say less than n
    independent ones. The variance between tasks gives the number of independent episodes that would
    say as much, at most n. Wilson's interval with that number and Student's quantile is what Dean &
    Pagano recommend for surveys in clusters (J. Survey Statistics and Methodology 2015).

    Args:
        counts: Successes and episodes of each task; tasks without episodes are left out.
        confidence: That the interval holds the rate.

    Returns:
        None for fewer than two tasks: one task says nothing of others.
    """
    played = [(successes, episodes) for successes, episodes in counts if episodes]
    for successes, episodes in played:
        _check_counts(successes, episodes)
    if len(played) < 2:
        return None
    successes, episodes = (sum(column) for column in zip(*played, strict=True))
    rate = successes / episodes
    between = sum((s - rate * n) ** 2 for s, n in played) * len(played) / (len(played) - 1)
    independent = rate * (1 - rate) * episodes
    worth = episodes * min(1.0, independent / between) if between else float(episodes)
    return _score_interval(rate, worth, student_quantile((1 + confidence) / 2, len(played) - 1))


def _score_interval(rate: float, episodes: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a rate from so many episodes, `z` standard errors to each side."""
    z2 = z * z
    centre = (rate + z2 / (2 * episodes)) / (1 + z2 / episodes)
    variance = rate * (1 - rate) / episodes + z2 / (4 * episodes**2)
    half = math.sqrt(z2 * variance) / (1 + z2 / episodes)
    # At the ends the bound is the rate itself; rounding would miss it.
    low = 0.0 if rate == 0 else centre - half
    high = 1.0 if rate == 1 else centre + half
    return low, high


@cache
def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's distribution, of a probability between 0.5 and 1.

    Args:
        probability: To lie below the quantile.
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _student_between(high, freedom) < 2 * probability - 1:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        is_below = _student_between(middle, freedom) < 2 * probability - 1
        low, high = (middle, high) if is_below else (low, middle)
    return (low + high) / 2


def _student_between(t: float, freedom: int) -> float:
    """P(|T| < t) of Student's distribution (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, squared = math.sin(angle), math.cos(angle) ** 2
    is_odd = freedom % 2 == 1
    term, total = (math.cos(angle) if is_odd else 1.0), 0.0
    for k in range(1 + is_odd, freedom, 2):
        total += term
        term *= squared * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if is_odd else sine * total


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
