"""Simulated checks of what duqsweep states: coverage, false differences, calibrated probabilities.

Each check plays episodes that are coin tosses with known chances, hands them to the package's own
functions as trials, and counts how often what they say is true.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from duqsweep.control.confirmation import ALPHA, confirmation_of
from duqsweep.control.front.intervals import clustered_by_task, wilson
from duqsweep.control.front.pareto import non_dominated
from duqsweep.control.front.reserved import judged
from duqsweep.control.front.verdict import MARGIN, verdict
from duqsweep.control.trials.reader import TrialView
from duqsweep.result import EpisodeRecord, TrialResult
from duqsweep.spec import PolicySpec, QuantSpec, RuntimeSpec, SuiteSpec, Trial, TrialSpec
from search.methods import KGHV, METHODS, Optuna
from search.simulation import Sweep
from search.simulation import Trial as SimulatedTrial
from search.truths import STATE_VARIANCE, Truth

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TASKS, STATES_PER_TASK = 10, 50
RESERVED_PER_TASK = 25
REFERENCE_RATE = 0.95
SUITE = SuiteSpec(
    name="duq_mini",
    tasks=TASKS,
    init_states=STATES_PER_TASK,
    image_px=64,
    max_steps=200,
    nominal_steps=90,
    settle_steps=5,
    replan_steps=5,
)


def chances(rates: Sequence[float], rng: np.random.Generator, by_task: float = 0.3) -> Floats:
    """Chances of success (policies, states), each row with exactly the mean rate that is asked for.

    States differ in difficulty, by a normal of variance 0.6 that all policies share; tasks differ
    by one more of standard deviation `by_task`. States are in the order of a task-balanced ledger.
    """
    difficulty = np.sqrt(STATE_VARIANCE) * rng.standard_normal((STATES_PER_TASK, TASKS))
    hard = (difficulty + by_task * rng.standard_normal(TASKS)).ravel()
    own = np.sqrt(1 - STATE_VARIANCE)

    def of(rate: float) -> Floats:
        skill = brentq(lambda s: ndtr((s - hard) / own).mean() - rate, -20.0, 20.0)
        found: Floats = ndtr((skill - hard) / own)
        return found

    return np.stack([of(rate) for rate in rates])


def view(number: int, outcomes: Bools) -> TrialView:
    """A complete trial with these outcomes, trial 0 the reference; tasks take turns."""
    spec = TrialSpec(PolicySpec("embedded"), QuantSpec(), RuntimeSpec(), SUITE)
    trial = Trial(number, "reference" if number == 0 else None, {}, f"{number:016x}", spec)
    episodes = tuple(_episode(i, won) for i, won in enumerate(outcomes.tolist()))
    count = len(episodes)
    won = int(outcomes.sum())
    result = TrialResult("complete", "", count, won, 0, won / count if count else None)
    return TrialView(trial, None, episodes, result, 0, None, 0)


@cache
def _episode(i: int, won: bool) -> EpisodeRecord:
    return EpisodeRecord(i, SUITE.name, i % TASKS, i // TASKS, 0, won, 90, 18, 0.1, 0.1, 0.2)


def _reserved_states(rng: np.random.Generator) -> NDArray[np.intp]:
    """Half of each task's states, in the order of a task-balanced ledger."""
    order = np.stack([rng.permutation(STATES_PER_TASK) for _ in range(TASKS)], axis=1)
    found: NDArray[np.intp] = (order[:RESERVED_PER_TASK] * TASKS + np.arange(TASKS)).ravel()
    return found


@dataclass(frozen=True)
class Share:
    """How often something happened, with Wilson's 95 % interval."""

    count: int
    runs: int

    def to_json(self) -> dict[str, float | int]:
        """Plain JSON data."""
        low, high = wilson(self.count, self.runs)
        share = self.count / self.runs
        return {
            "share": round(share, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "runs": self.runs,
        }


def coverage(runs: int, points: int, episodes: int, seed: int = 0) -> Share:
    """In how many confirmations all intervals hold the true rates, which lie at 0.4 to 0.99.

    The truth is the rate over all states of all tasks; `confirm` plays the reserved half of them,
    or the first `episodes`.
    """
    held = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        rates = [REFERENCE_RATE, *rng.uniform(0.4, 0.99, points)]
        won = _played(chances(rates, rng), rng, episodes)
        found = confirmation_of([view(n, row) for n, row in enumerate(won)], reference=0)
        held += all(
            (point.success.success_low or 0.0) <= rate <= (point.success.success_high or 1.0)
            for point, rate in zip(found.points, rates, strict=True)
        )
    return Share(held, runs)


def _played(of_states: Floats, rng: np.random.Generator, episodes: int) -> Bools:
    """Outcomes of the first `episodes` reserved states (policies, episodes)."""
    states = _reserved_states(rng)[:episodes]
    won: Bools = rng.random((len(of_states), len(states))) < of_states[:, states]
    return won


def false_differences(
    runs: int, trials: int, episodes: int, loss: float, seed: int = 0
) -> dict[str, Share]:
    """What is said of one configuration under many names, which all lose `loss` of success.

    With loss 0 any difference is a mistake. With the verdict's margin as loss, a trial is neither
    within the margin nor beyond it, so that both "confirmed" and "refuted" are at their limits.
    A share of runs counts those in which it happens to any of the trials.
    """
    rates = [REFERENCE_RATE, *[REFERENCE_RATE - loss] * trials]
    single = jointly = confirmed = refuted = passed = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, 1, run])
        won = _played(chances(rates, rng), rng, episodes)
        views = [view(n, row) for n, row in enumerate(won)]
        found = confirmation_of(views, reference=0)
        values = [p.p_value for p in found.points if p.trial and p.p_value is not None]
        single += sum(value < ALPHA for value in values)
        jointly += any(value < ALPHA / trials for value in values)
        states = [s for n, (s, _) in judged(found, MARGIN).items() if n]
        confirmed += "confirmed" in states
        refuted += "refuted" in states
        candidates = [(v, 2.0 if v.number == 0 else 1.0) for v in views]
        passed += verdict(candidates, views[0]).trial is not None
    return {
        "p_value_below_0.05": Share(single, runs * trials),
        "any_p_value_below_0.05_over_trials": Share(jointly, runs),
        "any_confirmed": Share(confirmed, runs),
        "any_refuted": Share(refuted, runs),
        "verdict_names_a_trial": Share(passed, runs),
    }


def looks(runs: int, trials: int, every: int, most: int, seed: int = 0) -> Share:
    """Sweeps whose verdict ever names one of the trials, all of which lose exactly the margin.

    The verdict looks again after each batch of `every` episodes, up to `most`.
    """
    rates = [REFERENCE_RATE, *[REFERENCE_RATE - MARGIN] * trials]
    named = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, 2, run])
        won = _played(chances(rates, rng), rng, most)
        named += any(
            verdict([(v, 2.0 if v.number == 0 else 1.0) for v in views], views[0]).trial is not None
            for views in _prefixes(won, every)
        )
    return Share(named, runs)


def _prefixes(won: Bools, every: int) -> Iterator[list[TrialView]]:
    for count in range(every, won.shape[1] + 1, every):
        yield [view(n, row[:count]) for n, row in enumerate(won)]


def other_tasks(runs: int, tasks: int, each: int, spread: float, seed: int = 0) -> dict[str, Share]:
    """How often intervals hold the mean rate over all tasks, of which a suite has a few.

    Args:
        runs: Suites that are drawn.
        tasks: Of each suite.
        each: Episodes of each task.
        spread: Standard deviation of the tasks' latent skill, beside 1 of an episode.
        seed: Of the draws.
    """
    rng = np.random.default_rng([seed, 3])
    latent = spread * rng.standard_normal((runs, tasks))
    skill = 1.3
    mean = float(ndtr(skill / np.sqrt(1 + spread**2)))
    won = rng.binomial(each, ndtr(skill + latent))
    clustered = [clustered_by_task([(int(s), each) for s in row]) or (0.0, 1.0) for row in won]
    plain = [wilson(int(row.sum()), tasks * each) for row in won]
    return {
        "clustered_by_task": Share(sum(low <= mean <= high for low, high in clustered), runs),
        "wilson": Share(sum(low <= mean <= high for low, high in plain), runs),
    }


@dataclass(frozen=True)
class Calibration:
    """Stated probabilities and what was true."""

    stated: Floats
    true: Bools

    def within(self, low: float, high: float) -> Share | None:
        """How often it was true where `low` <= stated < `high`; None where nothing was stated."""
        chosen = (self.stated >= low) & (self.stated < high)
        count = int(chosen.sum())
        return Share(int(self.true[chosen].sum()), count) if count else None

    def to_json(self) -> Mapping[str, object]:
        """Plain JSON data: one entry per tenth."""
        found: dict[str, object] = {}
        for tenth in range(10):
            low, high = tenth / 10, (tenth + 1) / 10
            share = self.within(low, high if tenth < 9 else 1.01)
            found[f"{low:.1f} to {high:.1f}"] = None if share is None else share.to_json()
        return found


class _Watched:
    """A method whose stated probabilities are kept each time that the sweep records it."""

    def __init__(self, method: KGHV | Optuna, truth: Truth) -> None:
        self._method, self._truth = method, truth
        self.next, self.finished = method.next, method.finished
        self.stated: list[float] = []
        self.true: list[bool] = []

    def recommend(self, trials: Sequence[SimulatedTrial]) -> list[tuple[SimulatedTrial, float]]:
        """Keep what is stated, and what is true; recommend nothing."""
        chances = self._method.front_chances(trials)
        points = [trial.params for trial, _ in chances]
        if points:
            rows = list(zip(self._truth.rate(points), self._truth.time_s(points), strict=True))
            self.true += non_dominated(rows, ("maximize", "minimize"))
            self.stated += [chance for _, chance in chances]
        return []


def front_calibration(
    truth: Truth, method: str, seeds: Sequence[int], budget: int, every: int
) -> Calibration:
    """What simulated sweeps state of each trial's place on the front, and what is true.

    A trial is truly on the front if no other of the sweep is better in true success and true time.

    Args:
        truth: Says what is true.
        method: `kghv`, or one of Optuna's of `search.methods.METHODS`.
        seeds: One sweep each.
        budget: Episodes of each sweep.
        every: So many episodes, the sweep is asked.
    """
    stated: list[float] = []
    true: list[bool] = []
    for seed in seeds:
        made = METHODS[method](truth, seed, 1)
        assert isinstance(made, (KGHV, Optuna))
        watched = _Watched(made, truth)
        Sweep(truth, seed, 1, budget).run(watched, every)
        stated += watched.stated
        true += watched.true
    return Calibration(np.array(stated), np.array(true, dtype=bool))
