"""A front: who is on it, how sure that is, and how much it covers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import SpecError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def non_dominated(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[bool]:
    """For each point, whether no other is as good in every objective and better in one.

    Args:
        points: One value an objective; equal points do not dominate each other.
        directions: "maximize" or "minimize", one an objective.
    """
    if not points:
        return []
    return [bool(on_front) for on_front in _on_front(_losses(points, directions)[None])[0]]


def hypervolume(
    points: Sequence[Sequence[float]], reference: Sequence[float], directions: Sequence[str]
) -> float:
    """The volume that `points` dominate, up to `reference`; exact in any number of objectives.

    Cuts the volume into slabs along the last objective, so it is meant for two to four of them.

    Args:
        points: One value an objective; those that are not better than `reference` in all count 0.
        reference: The worst corner, in the same units.
        directions: "maximize" or "minimize", one an objective.
    """
    if not points:
        return 0.0
    corner = _losses([reference], directions)[0]
    losses = _losses(points, directions)
    inside = [tuple(loss) for loss in losses if (loss < corner).all()]
    return _volume(inside, tuple(corner))


def _volume(points: list[tuple[float, ...]], corner: tuple[float, ...]) -> float:
    if not points:
        return 0.0
    if len(corner) == 1:
        return corner[0] - min(point[0] for point in points)
    ordered = sorted(points, key=lambda point: point[-1])
    floors = [point[-1] for point in ordered] + [corner[-1]]
    volume = 0.0
    for i in range(len(ordered)):
        thickness = floors[i + 1] - floors[i]
        if thickness > 0:
            volume += thickness * _volume([p[:-1] for p in ordered[: i + 1]], corner[:-1])
    return volume


@dataclass(frozen=True)
class Candidate:
    """What is known of a trial when its place on the front is judged."""

    outcomes: Mapping[int, bool]  # ledger position → success; episodes with an error left out
    costs: tuple[float, ...]  # the objectives beside the success rate, all minimised


def p_front(
    candidates: Sequence[Candidate],
    cost_noise: Sequence[float] = (),
    draws: int = 2000,
    seed: int = 0,
    rates_of: Sequence[Collection[int] | None] = (None,),
) -> list[float]:
    """The probability of each candidate to be on the front of success rates and costs.

    A Bayesian bootstrap: each draw gives every ledger position one weight, shared by all
    candidates, so that trials which walked the same episodes are compared pairwise; one success and
    one failure of random weight join each. A rate alone then follows Beta(1 + successes,
    1 + failures) exactly.

    Args:
        candidates: At least the trials that may be on the front.
        cost_noise: Relative standard deviation of each cost; none given: costs are exact.
        draws: Monte Carlo draws; 2000 give a standard error below 0.012.
        seed: The same seed gives the same probabilities.
        rates_of: The ledger positions of each success rate that is an objective; None: all.
    """
    if not candidates:
        return []
    rng = np.random.default_rng(seed)
    rates = _draw_rates(candidates, draws, rng, rates_of)
    costs = np.array([candidate.costs for candidate in candidates])  # (candidates, costs)
    noise = np.array(cost_noise or [0.0] * costs.shape[1])
    factors = np.exp(noise * rng.standard_normal((draws, *costs.shape)))
    losses = np.concatenate([-rates, costs * factors], axis=-1)
    return [float(p) for p in _on_front(losses).mean(axis=0)]


def _draw_rates(
    candidates: Sequence[Candidate],
    draws: int,
    rng: np.random.Generator,
    rates_of: Sequence[Collection[int] | None],
) -> Floats:
    """Success rates (draws, candidates, rates)."""
    positions = sorted({i for candidate in candidates for i in candidate.outcomes})
    column = {position: j for j, position in enumerate(positions)}
    walked = np.zeros((len(candidates), len(positions)))
    succeeded = np.zeros_like(walked)
    for row, candidate in enumerate(candidates):
        for position, success in candidate.outcomes.items():
            walked[row, column[position]] = 1.0
            succeeded[row, column[position]] = float(success)
    weights = rng.exponential(size=(draws, len(positions)))
    rates = []
    for chosen in rates_of:
        counted = [chosen is None or position in chosen for position in positions]
        prior = rng.exponential(size=(2, draws, len(candidates)))
        hits = weights @ (succeeded * counted).T + prior[0]
        rates.append(hits / (weights @ (walked * counted).T + prior.sum(axis=0)))
    return np.stack(rates, axis=-1)


def _losses(points: Sequence[Sequence[float]], directions: Sequence[str]) -> Floats:
    """Points (n, objectives), all to be minimised."""
    unknown = set(directions) - {"maximize", "minimize"}
    if unknown:
        raise SpecError(f"a direction is maximize or minimize, got {sorted(unknown)}")
    if any(len(point) != len(directions) for point in points):
        raise SpecError(f"every point needs {len(directions)} values, got {list(points)}")
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    losses: Floats = np.array(points, dtype=np.float64) * np.array(signs)
    return losses


def _on_front(losses: Floats) -> Bools:
    """Losses (draws, n, objectives) → whether each point is on its draw's front (draws, n)."""
    if losses.shape[-1] == 2:
        return _on_front_of_two(losses[..., 0], losses[..., 1])
    fronts: Bools = np.empty(losses.shape[:2], dtype=bool)
    for draw, points in enumerate(losses):
        no_worse = (points[:, None] <= points[None]).all(axis=-1)
        better = (points[:, None] < points[None]).any(axis=-1)
        fronts[draw] = ~(no_worse & better).any(axis=0)
    return fronts


def _on_front_of_two(first: Floats, second: Floats) -> Bools:
    """The same for two objectives by one sorted pass, quick enough for a thousand trials."""
    order = np.lexsort((second, first), axis=-1)
    x = np.take_along_axis(first, order, axis=-1)
    y = np.take_along_axis(second, order, axis=-1)
    lowest = np.minimum.accumulate(y, axis=-1)  # among the points up to here
    earlier = np.full_like(y, np.inf)
    earlier[:, 1:] = lowest[:, :-1]
    # Where that lowest was first reached: an equal y counts only against a smaller x.
    record = np.where(y < earlier, np.arange(y.shape[1]), 0)
    holder = np.maximum.accumulate(record, axis=-1)
    holder[:, 1:] = holder[:, :-1].copy()
    holder_x = np.take_along_axis(x, holder, axis=-1)
    dominated = (earlier < y) | ((earlier == y) & (holder_x < x))
    front: Bools = np.empty_like(dominated)
    np.put_along_axis(front, order, ~dominated, axis=-1)
    return front
