"""Sweeps on a ground truth, in simulated time: workers, episodes, and what a method recommends."""

from __future__ import annotations

import heapq
import json
import math
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import random_value
from duqsweep.control.front.pareto import hypervolume, non_dominated
from search.truths import Truth

Floats = NDArray[np.float64]

SIMULATOR_S = 12.0  # of an episode, beside the policy
START_S = 310.0  # to load, compile and benchmark a new trial
GENERATIONS, OFFSPRING = 120, 300  # of the search for the true front
FLOOR = 0.5  # success rates below it count for nothing
WAYS = ("maximize", "minimize")


@dataclass
class Trial:
    """A trial of a simulated sweep."""

    number: int
    params: Params
    log_time: float  # as measured
    crashed: bool
    outcomes: NDArray[np.bool_]  # of every state, drawn in advance
    episodes: int = 0
    pending: int = 0  # episodes that are being evaluated

    @property
    def successes(self) -> int:
        """Among the episodes so far."""
        return int(self.outcomes[: self.episodes].sum())


class Method(Protocol):
    """A way to search."""

    def next(self, trials: Sequence[Trial]) -> tuple[Params | int, int] | None:
        """What a free worker does: a new point or a trial's number, and how many episodes."""

    def finished(self, trial: Trial) -> None:
        """The episodes that were asked for are there."""

    def recommend(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """The front, by what is known now, with the success rates that are stated for it."""


@dataclass(frozen=True)
class Record:
    """Where a simulated sweep stands."""

    episodes: int
    gpu_h: float
    volume: float  # true hypervolume of the recommended trials, of the true front's
    optimism: float  # mean stated success rate of the recommended minus the true one


@dataclass
class Sweep:
    """One simulated sweep."""

    truth: Truth
    seed: int
    workers: int
    budget: int  # episodes
    trials: list[Trial] = field(default_factory=list)

    def run(self, method: Method, record_every: int = 50) -> list[Record]:
        """Spend the budget; one record per `record_every` episodes."""
        now, spent, gpu_s = 0.0, 0, 0.0
        running: list[tuple[float, int, int]] = []  # (end, trial, episodes)
        records: list[Record] = []
        idle = False
        while True:
            while len(running) < self.workers and spent < self.budget and not idle:
                asked = method.next(self.trials)
                if asked is None:
                    idle = True
                    break
                what, episodes = asked
                trial = self.trials[what] if isinstance(what, int) else self._start(what)
                is_new = not isinstance(what, int)
                if trial.crashed or trial.log_time >= self.truth.corner:
                    episodes = 0
                episodes = min(episodes, self.truth.states - trial.episodes)
                trial.pending = episodes
                seconds = START_S * is_new + episodes * (math.exp(trial.log_time) + SIMULATOR_S)
                heapq.heappush(running, (now + seconds, trial.number, episodes))
                gpu_s += seconds
                spent += episodes
            if not running:
                return records
            now, number, episodes = heapq.heappop(running)
            trial = self.trials[number]
            trial.episodes += episodes
            trial.pending = 0
            method.finished(trial)
            idle = False
            seen = sum(t.episodes for t in self.trials)
            if seen // record_every > len(records) - 1 and seen:
                chosen = method.recommend(self.trials)
                record = self._record(seen, gpu_s / 3600, chosen)
                while len(records) <= seen // record_every:
                    records.append(record)

    def _start(self, point: Params) -> Trial:
        text = zlib.crc32(json.dumps(sorted(point.items())).encode())
        rng = np.random.default_rng([self.seed, text])
        noise = self.truth.time_noise * rng.standard_normal()
        log_time = math.log(float(self.truth.time_s([point])[0])) + noise
        chances = self.truth.probabilities([point])[0]
        outcomes = rng.random(self.truth.states) < chances
        trial = Trial(len(self.trials), point, log_time, self.truth.crashes(point), outcomes)
        self.trials.append(trial)
        return trial

    def _record(self, episodes: int, gpu_h: float, chosen: Sequence[tuple[Trial, float]]) -> Record:
        if not chosen:
            return Record(episodes, gpu_h, 0.0, 0.0)
        points = [trial.params for trial, _ in chosen]
        rates = self.truth.rate(points)
        volume = true_volume(self.truth, points) / best_volume(self.truth)
        return Record(episodes, gpu_h, volume, float(np.mean([rate for _, rate in chosen] - rates)))


def true_volume(truth: Truth, points: Sequence[Params]) -> float:
    """Hypervolume of the true values: success rate above 0.5, log time below the corner."""
    pairs = list(zip(truth.rate(points), np.log(truth.time_s(points)), strict=True))
    return hypervolume(pairs, (FLOOR, truth.corner), WAYS)


BEST: dict[str, float] = {}  # known results of `best_volume`


def best_volume(truth: Truth) -> float:
    """The hypervolume of the true front, by an evolutionary search without noise."""
    if truth.name not in BEST:
        rng = random.Random(0)
        front = [*truth.starts, *(random_point(truth, rng) for _ in range(OFFSPRING))]
        for _ in range(GENERATIONS):
            children = [
                mutated(truth, rng.choice(front), rng.choice(front), rng) for _ in range(OFFSPRING)
            ]
            points = list({json.dumps(p, sort_keys=True): p for p in [*front, *children]}.values())
            pairs = list(zip(truth.rate(points), np.log(truth.time_s(points)), strict=True))
            flags = non_dominated(pairs, WAYS)
            front = [point for point, kept in zip(points, flags, strict=True) if kept]
        BEST[truth.name] = true_volume(truth, front)
    return BEST[truth.name]


def random_point(truth: Truth, rng: random.Random) -> Params:
    """A point drawn uniformly."""
    return {p.key: random_value(p.domain, rng) for p in truth.parameters}


def mutated(truth: Truth, a: Params, b: Params, rng: random.Random) -> Params:
    """A child of two points."""
    chance = rng.choice((1.0, 2.0, 4.0)) / len(truth.parameters)
    cross = rng.choice((0.0, 0.5))
    return {
        p.key: random_value(p.domain, rng)
        if rng.random() < chance
        else (b if rng.random() < cross else a)[p.key]
        for p in truth.parameters
    }


MakeMethod = Callable[[Truth, int, int], Method]  # truth, seed, workers
