"""A front: who is on it, how sure that is, and how much it covers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import SpecError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_BLOCK = 8  # members of a front that a candidate is compared with at once


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
    costs: tuple[float, ...]  # the objectives beside the success rates, all minimised
    # The ledger positions of each success rate that is an objective; None: all.
    rates_of: tuple[Collection[int] | None, ...] = (None,)


def p_front(
    candidates: Sequence[Candidate],
    cost_noise: Sequence[float] = (),
    draws: int = 2000,
    seed: int = 0,
) -> list[float]:
    """The probability of each candidate to be on the front; see `FrontDraws`."""
    fronts = FrontDraws(cost_noise, draws, seed)
    chances = fronts.update(dict(enumerate(candidates)))
    return [chances[i] for i in range(len(candidates))]


class FrontDraws:
    """The fronts of success rates and costs in many random draws, kept while candidates join.

    A Bayesian bootstrap: each draw gives every ledger position one weight, shared by all
    candidates, so that trials that ran the same episodes are compared pairwise; one success and
    one failure of random weight join each. A rate alone then follows Beta(1 + successes,
    1 + failures) exactly.

    A candidate that another dominates in a draw is out of that draw's front for good. So only the
    members of each draw's front are kept, and a new candidate is compared with those: its cost does
    not grow with the number of all others. The random numbers of a candidate depend on the seed and
    its key alone, so that the order in which candidates join makes no difference.
    """

    def __init__(self, cost_noise: Sequence[float] = (), draws: int = 2000, seed: int = 0) -> None:
        """No candidates.

        Args:
            cost_noise: Relative standard deviation of each cost; none given: costs are exact.
            draws: Monte Carlo draws; 2000 give a standard error below 0.012.
            seed: The same seed gives the same probabilities.
        """
        self._noise = tuple(cost_noise)
        self._draws = draws
        self._seed = seed
        self._weights: dict[int, Floats] = {}  # ledger position → (draws,)
        self._forget()

    def _forget(self) -> None:
        self._known: dict[int, Candidate] = {}
        # Each draw's front in a column of places, in no order; a place without a member has the
        # key -1 and infinite losses.
        self._keys = np.full((0, self._draws), -1, dtype=np.int64)
        self._losses = np.empty((0, 0, self._draws), dtype=np.float32)  # objectives, places, draws

    def _members(self) -> dict[int, int]:
        """On how many draws' fronts each candidate is that is on any."""
        keys, counts = np.unique(self._keys, return_counts=True)
        members = dict(zip(keys.tolist(), counts.tolist(), strict=True))
        members.pop(-1, None)
        return members

    def update(self, candidates: Mapping[int, Candidate]) -> dict[int, float]:
        """The probability of each candidate, by key, to be on the front.

        Args:
            candidates: By a key that stays the candidate's own; at least all that may be on the
                front.
        """
        changed = [
            key
            for key, known in self._known.items()
            if (now := candidates.get(key)) is not known and now != known
        ]
        members = self._members()
        first = sorted(members, key=lambda key: -members[key])
        if members.keys() & changed:  # what it dominated may be on a front again
            self._forget()
        for key in changed:
            self._known.pop(key, None)
        new = {key: one for key, one in candidates.items() if key not in self._known}
        # Those that are or may be on fronts come first, because they dominate most of the others.
        for key in dict.fromkeys([*first, *_best_first(new)]):
            if key in new:
                self._known[key] = new[key]
                self._join(key, new[key])
        members = self._members() if new or changed else members
        return {key: members.get(key, 0) / self._draws for key in candidates}

    def _join(self, key: int, candidate: Candidate) -> None:
        """Put a candidate on the fronts of the draws in which no member dominates it."""
        losses = self._draw(key, candidate)
        if not self._losses.size:
            self._losses = np.empty((len(losses), 0, self._draws), dtype=np.float32)
        rows = np.arange(self._draws)  # where nobody dominates it
        for start in range(0, len(self._keys), _BLOCK):
            block = self._losses[:, start : start + _BLOCK]
            block = block if rows.size == self._draws else block[:, :, rows]
            rows = rows[~_dominates(block, losses[:, None, rows]).any(axis=0)]
            if not rows.size:
                return
        free = _dominates(losses[:, None, rows], self._losses[:, :, rows])
        place, column = np.nonzero(free)
        self._keys[place, rows[column]] = -1
        self._losses[:, place, rows[column]] = np.inf
        if not free.any(axis=0).all():
            self._add_places()
            free = self._keys[:, rows] == -1
        place = free.argmax(axis=0)
        self._keys[place, rows] = key
        self._losses[:, place, rows] = losses[:, rows]

    def _add_places(self) -> None:
        keys = np.full((_BLOCK, self._draws), -1, dtype=np.int64)
        losses = np.full((len(self._losses), *keys.shape), np.inf, dtype=np.float32)
        self._keys = np.concatenate([self._keys, keys])
        self._losses = np.concatenate([self._losses, losses], axis=1)

    def _draw(self, key: int, candidate: Candidate) -> NDArray[np.float32]:
        """Losses (objectives, draws): the success rates, negative, and the costs."""
        rng = np.random.default_rng([self._seed, 1, key])
        losses = []
        for chosen in candidate.rates_of:
            counted = [i for i in sorted(candidate.outcomes) if chosen is None or i in chosen]
            won = [candidate.outcomes[i] for i in counted]
            weights = np.array([self._weight(i) for i in counted]).reshape(-1, self._draws)
            prior = rng.exponential(size=(2, self._draws))
            hits = np.array(won, dtype=float) @ weights + prior[0]
            losses.append(-hits / (weights.sum(axis=0) + prior.sum(axis=0)))
        noise = self._noise or (0.0,) * len(candidate.costs)
        for cost, deviation in zip(candidate.costs, noise, strict=True):
            losses.append(cost * np.exp(deviation * rng.standard_normal(self._draws)))
        return np.array(losses, dtype=np.float32)

    def _weight(self, position: int) -> Floats:
        if position not in self._weights:
            rng = np.random.default_rng([self._seed, 0, position])
            self._weights[position] = rng.exponential(size=self._draws)
        return self._weights[position]


def _best_first(candidates: Mapping[int, Candidate]) -> list[int]:
    """The keys of many candidates, those first that are on the front of their plain numbers."""
    if not candidates:
        return []
    losses = np.array([_plain_losses(candidate) for candidate in candidates.values()])
    order = np.argsort(~on_front(losses[None])[0], kind="stable")
    keys = list(candidates)
    return [keys[i] for i in order]


def _plain_losses(candidate: Candidate) -> list[float]:
    losses = []
    for chosen in candidate.rates_of:
        won = [w for i, w in candidate.outcomes.items() if chosen is None or i in chosen]
        losses.append(-sum(won) / max(len(won), 1))
    return [*losses, *candidate.costs]


def _dominates(these: NDArray[np.float32], those: NDArray[np.float32]) -> Bools:
    """Whether points dominate others; objectives are the first axis, the rest broadcasts."""
    no_worse = these[0] <= those[0]
    better = these[0] < those[0]
    for mine, theirs in zip(these[1:], those[1:], strict=True):
        no_worse &= mine <= theirs
        better |= mine < theirs
    dominates: Bools = no_worse & better
    return dominates


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
