"""What follows from a sweep's situation: the next batch of episodes, and beliefs about trials.

Only arithmetic on plain data, so that it can run beside the loop in a thread of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from duqsweep.control.config.parameters import Params
from duqsweep.control.config.until import Until
from duqsweep.control.front.beliefs import Answer, Belief, Beliefs
from duqsweep.control.kghv.chooser import Choice, Chooser, Prices, Region
from duqsweep.control.kghv.known import Known
from duqsweep.control.kghv.posterior import Posterior
from duqsweep.control.kghv.question import Able, answer_fastest, answer_front, choose_for_fastest


@dataclass(frozen=True)
class Situation:
    """A sweep at one moment."""

    known: tuple[Known, ...]  # all trials
    region: Region | None  # where hypervolume counts; None before a trial was benchmarked
    prices: Prices
    taken: Callable[[Params], bool]  # whether a point cannot be evaluated, or is a trial already
    may_start: bool  # whether a new trial may be started
    is_start: bool  # plans or random points are still to be started
    seed: str  # of the random numbers


@dataclass(frozen=True)
class Questioned:
    """What a sweep's user asks for, and how its trials are compared."""

    until: Until | None  # `budget.until`, of a sweep that has a space
    time: int  # place of the time among the costs; only where `until` asks for the fastest
    noise: tuple[float, ...]  # relative standard deviation of each cost between two benchmarks
    batch: int  # episodes of a decision


class Decider:
    """The model's side of a search: it reads no file and writes none.

    Decisions follow from the situation and the hyperparameters. Beliefs leave these as they are, so
    that decisions do not depend on how often somebody asked what is believed.
    """

    def __init__(self, chooser: Chooser, asked: Questioned) -> None:
        """Decides with `chooser`."""
        self._chooser = chooser
        self._asked = asked

    @property
    def hyperparameters(self) -> list[list[float]]:
        """What must survive a restart for the same decisions, as plain JSON data."""
        return self._chooser.hyperparameters

    @hyperparameters.setter
    def hyperparameters(self, saved: list[list[float]]) -> None:
        self._chooser.hyperparameters = saved

    def decide(self, situation: Situation) -> Choice | None:
        """The next batch; None where nothing is left to evaluate.

        Every second decision serves the question of the fastest trial, where it was asked. The
        others serve the front as a whole, among which the answer lies.
        """
        assert situation.region is not None
        rng = random.Random(f"kghv/{situation.seed}")
        choice = self._for_question(situation, rng)
        if choice is not None:
            return choice
        return self._chooser.choose(
            situation.known,
            situation.region,
            situation.prices,
            situation.taken,
            rng,
            situation.may_start,
        )

    def _for_question(self, situation: Situation, rng: random.Random) -> Choice | None:
        until, known = self._asked.until, situation.known
        if until is None or until.least_success is None:
            return None
        if sum(trial.episodes + trial.pending for trial in known) // self._asked.batch % 2:
            return None
        return choose_for_fastest(
            until,
            self._chooser.posterior(known),
            known,
            self._chooser.new_points(known, rng),
            self._asked.time,
            situation.prices,
            self._asked.batch,
            _taken_or_too_much(situation),
        )

    def believe(self, situation: Situation) -> Beliefs:
        """What is believed of all trials with episodes, and of the question that was asked."""
        kept = self._chooser.hyperparameters
        try:
            return self._believe(situation)
        finally:
            self._chooser.hyperparameters = kept

    def _believe(self, situation: Situation) -> Beliefs:
        known, noise = situation.known, np.array(self._asked.noise)
        posterior = self._chooser.posterior(known)
        able = Able.of(known, posterior)
        chances = posterior.front_chances(able.places, able.costs, noise).tolist()
        on_front = {int(i): round(p, 4) for i, p in zip(able.places, chances, strict=True)}
        costs = dict(zip(able.places.tolist(), able.costs.tolist(), strict=True))
        pairs = zip(posterior.means.tolist(), posterior.sds.tolist(), strict=True)
        believed = [
            Belief(round(mean, 4), round(sd, 4), on_front.get(i), _rounded(costs.get(i)))
            for i, (mean, sd) in enumerate(pairs)
        ]
        return Beliefs(_of_played(known, believed), self._answer(situation, posterior, able))

    def _answer(self, situation: Situation, posterior: Posterior, able: Able) -> Answer | None:
        """What is known of the question of `budget.until`; None where nothing can be said yet."""
        until, known = self._asked.until, situation.known
        if until is None or not len(able.places) or situation.is_start:
            return None
        rng = random.Random(f"until/{situation.seed}")
        new = self._chooser.new_points(known, rng)
        taken = _taken_or_too_much(situation)
        if until.least_success is not None:
            return answer_fastest(until, posterior, able, known, new, self._asked.time, taken)
        assert situation.region is not None
        return answer_front(until, posterior, able, new, situation.region, taken)


def _rounded(costs: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if costs is None else tuple(round(cost, 4) for cost in costs)


def _of_played(known: Sequence[Known], believed: Sequence[Belief]) -> dict[str, Belief]:
    pairs = zip(known, believed, strict=True)
    return {str(trial.number): belief for trial, belief in pairs if trial.episodes}


def _taken_or_too_much(situation: Situation) -> Callable[[Params], bool]:
    """Whether a point is taken, or no new trial may be started."""
    return lambda point: not situation.may_start or situation.taken(point)
