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
        points: One value per objective; equal points do not dominate each other.
        directions: "maximize" or "minimize", one per objective.
    """
    if not points:
        return []
    return [bool(on_front) for on_front in on_front(_losses(points, directions)[None])[0]]


def hypervolume(
    points: Sequence[Sequence[float]], reference: Sequence[float], directions: Sequence[str]
) -> float:
    """The volume that `points` dominate, up to `reference`; exact in any number of objectives.

    Cuts the volume of the points on the front into slabs along the last objective, down to areas.
    So a thousand points with three objectives take milliseconds, and four are possible.

    Args:
        points: One value per objective; those that are not better than `reference` in all count 0.
        reference: The worst corner, in the same units.
        directions: "maximize" or "minimize", one per objective.
    """
    if not points:
        return 0.0
    corner = _losses([reference], directions)[0]
    losses = _losses(points, directions)
    inside = np.unique(losses[(losses < corner).all(axis=1)], axis=0)
    return _volume(inside, corner) if len(inside) else 0.0


def _volume(points: Floats, corner: Floats) -> float:
    """The volume between `points` (n, objectives) and `corner`; n ≥ 1, all points below it."""
    if len(corner) == 1:
        return float(corner[0] - points[:, 0].min())
    points = points[on_front(points[None])[0]]
    points = points[np.argsort(points[:, -1], kind="stable")]
    thickness = np.diff(points[:, -1], append=corner[-1])
    if len(corner) == 2:
        return float(thickness @ (corner[0] - np.minimum.accumulate(points[:, 0])))
    slabs = np.flatnonzero(thickness)
    areas = [_volume(points[: i + 1, :-1], corner[:-1]) for i in slabs]
    return float(thickness[slabs] @ np.array(areas))


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
    candidates, so that trials that ran the same episodes are compared pairwise; one success and
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
    return [float(p) for p in on_front(losses).mean(axis=0)]


def _draw_rates(
    candidates: Sequence[Candidate],
    draws: int,
    rng: np.random.Generator,
    rates_of: Sequence[Collection[int] | None],
) -> Floats:
    """Success rates (draws, candidates, rates)."""
    positions = sorted({i for candidate in candidates for i in candidate.outcomes})
    column = {position: j for j, position in enumerate(positions)}
    ran = np.zeros((len(candidates), len(positions)))
    succeeded = np.zeros_like(ran)
    for row, candidate in enumerate(candidates):
        for position, success in candidate.outcomes.items():
            ran[row, column[position]] = 1.0
            succeeded[row, column[position]] = float(success)
    weights = rng.exponential(size=(draws, len(positions)))
    rates = []
    for chosen in rates_of:
        counted = [chosen is None or position in chosen for position in positions]
        prior = rng.exponential(size=(2, draws, len(candidates)))
        hits = weights @ (succeeded * counted).T + prior[0]
        rates.append(hits / (weights @ (ran * counted).T + prior.sum(axis=0)))
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


def on_front(losses: Floats) -> Bools:
    """Losses (draws, n, objectives) → whether each point is on its draw's front (draws, n)."""
    if losses.shape[-1] == 2:
        return _on_front_of_two(losses[..., 0], losses[..., 1])
    return _on_front_by_peeling(losses)


def _on_front_by_peeling(losses: Floats) -> Bools:
    """The same for any number of objectives, in as many steps as the largest front has points.

    Points are visited by the sum of their losses, each divided by its range, and lexicographically
    where sums are equal: nothing that comes later can dominate a point. So the first point that is
    not dominated yet is on the front. Each step removes what it dominates, in all draws at once.
    """
    draws, count, _ = losses.shape
    by_objective = np.ascontiguousarray(losses.transpose(2, 0, 1))
    spans = np.ptp(by_objective, axis=(1, 2), keepdims=True)
    total = (by_objective / np.where(spans > 0, spans, 1.0)).sum(axis=0)
    order = np.lexsort([*by_objective[::-1], total], axis=-1)
    rank = np.argsort(order, axis=-1)  # (draws, n): the place of each point in its draw's order
    front = np.zeros((draws, count), dtype=bool)
    live, column = np.arange(draws), np.arange(count)  # rows and columns that have open points
    is_open = np.ones((draws, count), dtype=bool)  # neither on the front nor dominated so far
    while live.size:
        rows = np.arange(live.size)
        first = np.where(is_open, rank, count).argmin(axis=-1)
        front[live, column[first]] = True
        no_better = np.ones_like(is_open)
        worse = np.zeros_like(is_open)
        for values in by_objective:
            chosen = values[rows, first][:, None]
            no_better &= values >= chosen
            worse |= values > chosen
        is_open &= ~(no_better & worse)
        is_open[rows, first] = False
        kept_rows, kept_columns = is_open.any(axis=-1), is_open.any(axis=0)
        if kept_rows.sum() * kept_columns.sum() <= 0.8 * is_open.size:
            kept = np.ix_(kept_rows, kept_columns)
            live, column = live[kept_rows], column[kept_columns]
            rank, is_open = rank[kept], is_open[kept]
            by_objective = np.stack([values[kept] for values in by_objective])
    return front


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
