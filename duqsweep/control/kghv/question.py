"""What a user wants to know of a front (`budget.until`), and how well that is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from duqsweep.control.config.parameters import Params
from duqsweep.control.config.until import Until
from duqsweep.control.front.beliefs import Answer
from duqsweep.control.front.pareto import hypervolume, non_dominated
from duqsweep.control.kghv.acquisition import Staircase, gain_of_new
from duqsweep.control.kghv.angles import rate, rate_sd
from duqsweep.control.kghv.chooser import Choice, NewPoints, Prices, Region
from duqsweep.control.kghv.known import Known
from duqsweep.control.kghv.posterior import Posterior

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Taken = Callable[[Params], bool]

TIE = math.log(1.04)  # times that differ by less are equally fast: two benchmarks differ by 2 %
VOLUMES = 100  # draws of the hypervolume


@dataclass(frozen=True)
class Able:
    """The trials that may be on the front: they have succeeded at least once and have all costs."""

    places: Places  # among all trials (m,)
    costs: Floats  # logarithms, without the noise of their measures (m, k)

    @classmethod
    def of(cls, known: Sequence[Known], posterior: Posterior) -> Able:
        """Those of `known`, with what is believed of them."""
        found = [i for i, t in enumerate(known) if t.successes and t.costs is not None]
        places = np.array(found, dtype=np.intp)
        return cls(places, posterior.costs[places])


def answer_fastest(
    until: Until,
    posterior: Posterior,
    able: Able,
    known: Sequence[Known],
    new: NewPoints,
    time: int,
    taken: Taken,
) -> Answer:
    """The trial that is most probably the fastest with enough success.

    It is known when it is that with the probability asked for, and when no new point beats it with
    more than the rest of that probability.

    Args:
        until: The question.
        posterior: Of all trials.
        able: Those that may be it, at least one.
        known: All trials.
        new: Points that are no trials.
        time: Place of the time among the costs.
        taken: Whether a point cannot be evaluated, or is a trial already.
    """
    assert until.least_success is not None
    place, chance = fastest(posterior, able, time, until.least_success)
    log_time = float(able.costs[able.places == place, time][0])
    rival = best_rival(new, time, log_time, until.least_success, taken)
    return Answer(
        question=until.text,
        is_known=chance >= until.probability and rival <= 1 - until.probability,
        trial=known[place].number,
        probability=round(chance, 4),
        rival_probability=round(rival, 4),
        front_loss=None,
        new_gain=None,
    )


def answer_front(
    until: Until,
    posterior: Posterior,
    able: Able,
    new: NewPoints,
    region: Region,
    taken: Taken,
) -> Answer:
    """How well the front is known.

    It is known when what it lacks of the best of the trials and what the best new point would add
    are together at most the share asked for.

    Args:
        until: The question.
        posterior: Of all trials.
        able: Those that may be on the front, at least one.
        new: Points that are no trials.
        region: Where hypervolume counts.
        taken: Whether a point cannot be evaluated, or is a trial already.
    """
    assert until.loss is not None
    loss = front_loss(posterior, able, region)
    gain = best_gain(posterior, able, new, region, taken)
    return Answer(
        question=until.text,
        is_known=loss + gain <= until.loss,
        trial=None,
        probability=None,
        rival_probability=None,
        front_loss=round(loss, 4),
        new_gain=round(gain, 4),
    )


def choose_for_fastest(
    until: Until,
    posterior: Posterior,
    known: Sequence[Known],
    new: NewPoints,
    time: int,
    prices: Prices,
    batch: int,
    taken: Taken,
) -> Choice | None:
    """The batch of episodes that says most about the question, per second.

    Of the trial that is most probably the fastest with enough success, of those that are faster,
    and of the new points that are, the one of which it is least certain whether it succeeds often
    enough: the product of both probabilities, divided by the time of its episodes.

    Args:
        until: The question.
        posterior: Of all trials.
        known: All trials.
        new: Points that are no trials.
        time: Place of the time among the costs.
        prices: What evaluating takes.
        batch: Episodes of a decision.
        taken: Whether a point cannot be evaluated, or is a trial already.

    Returns:
        None where nothing is left to evaluate for it.
    """
    assert until.least_success is not None
    able = Able.of(known, posterior)
    if not len(able.places):
        return None
    place, _ = fastest(posterior, able, time, until.least_success)
    limit = float(able.costs[able.places == place, time][0])
    doubts = _doubts(posterior.angles, np.diag(posterior.covariances), until.least_success)
    seconds = batch * prices.episode_s(able.costs)
    choices = [
        Choice(known[i].number, None, batch, float(doubts[i] / seconds[row]))
        for row, i in enumerate(able.places)
        if able.costs[row, time] <= limit + TIE and not (known[i].is_done or known[i].pending)
    ]
    seconds = prices.start_s + batch * prices.episode_s(new.costs)
    doubts = _doubts(new.angles, new.variances, until.least_success)
    gains = new.sound * doubts * _faster(new, time, limit) / seconds
    for i in np.argsort(-gains, kind="stable"):
        if not taken(new.points[i]):
            choices.append(Choice(None, new.points[i], batch, float(gains[i])))
            break
    return max(choices, key=lambda choice: choice.gain, default=None)


def _faster(new: NewPoints, time: int, log_time: float) -> Floats:
    """The probability of new points to be faster than `log_time` by more than 4 % (m,)."""
    sds = np.sqrt(new.cost_variances[:, time])
    found: Floats = ndtr((log_time - TIE - new.costs[:, time]) / sds)
    return found


def _doubts(angles: Floats, variances: Floats, least_success: float) -> Floats:
    """How uncertain it is whether rates are at least so high: 0.25 for even odds."""
    margins = (angles - math.asin(math.sqrt(least_success))) / np.sqrt(variances)
    chances = ndtr(margins)
    doubts: Floats = chances * (1 - chances)
    return doubts


def fastest(posterior: Posterior, able: Able, time: int, least_success: float) -> tuple[int, float]:
    """The place of the trial that is most probably the fastest, and the probability.

    That is: it has the success rate, while no trial that is faster by more than 4 % has it.
    """
    log_times = able.costs[:, time]
    has = posterior.draws[:, able.places] >= least_success
    best_times = np.where(has, log_times, np.inf).min(axis=1, keepdims=True)
    chances = (has & (log_times <= best_times + TIE)).mean(axis=0)
    # Of equal ones, the one that has the success most surely.
    best = int(np.lexsort((has.mean(axis=0), chances))[-1])
    return int(able.places[best]), float(chances[best])


def best_rival(
    new: NewPoints, time: int, log_time: float, least_success: float, taken: Taken
) -> float:
    """The highest probability of a new point to have the success rate and be faster than that.

    Both are predicted, as if independent of each other.
    """
    margins = (new.angles - math.asin(math.sqrt(least_success))) / np.sqrt(new.variances)
    chances = new.sound * ndtr(margins) * _faster(new, time, log_time)
    for i in np.argsort(-chances, kind="stable"):
        if not taken(new.points[i]):
            return float(chances[i])
    return 0.0


def front_loss(posterior: Posterior, able: Able, region: Region) -> float:
    """The share of hypervolume that the front by posterior means is expected to lack.

    Against the true front of the same trials: 0 where it is certain who is on it.
    """
    ways = ["maximize", *["minimize"] * able.costs.shape[1]]
    corner = [region.floor, *region.corner]
    means = posterior.means[able.places]
    shown = np.array(non_dominated(np.column_stack([means, able.costs]).tolist(), ways))
    most, lacking = 0.0, 0.0
    for rates in posterior.draws[:VOLUMES, able.places]:
        rows = np.column_stack([rates, able.costs])
        whole = hypervolume(rows.tolist(), corner, ways)
        most += whole
        lacking += whole - hypervolume(rows[shown].tolist(), corner, ways)
    return lacking / most if most else 1.0


def best_gain(
    posterior: Posterior, able: Able, new: NewPoints, region: Region, taken: Taken
) -> float:
    """The hypervolume that the best new point would add, expected, as a share of what there is."""
    corner = np.array(region.corner)
    stairs = Staircase(posterior.means[able.places], able.costs, corner, region.floor)
    volume = stairs.volume()
    if not volume:
        return 1.0
    rates = rate(new.angles)
    sds = np.maximum(rate_sd(new.angles, np.sqrt(new.variances)), 1e-9)
    inside = np.flatnonzero((new.costs < corner).all(axis=1))
    gains = np.array(
        [
            new.sound[i]
            * gain_of_new(rates[i], sds[i], stairs.heights, stairs.volumes(new.costs[i]))
            for i in inside
        ]
    )
    for i in np.argsort(-gains, kind="stable"):
        if not taken(new.points[inside[i]]):
            return float(gains[i]) / volume
    return 0.0
