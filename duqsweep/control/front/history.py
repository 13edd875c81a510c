"""How a sweep's front grew, trial by trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.control.front.content import is_candidate, objective_row, worst_corner
from duqsweep.control.front.pareto import hypervolume, non_dominated
from duqsweep.control.front.records import Front
from duqsweep.control.trials.reader import TrialView


@dataclass(frozen=True)
class HistoryStep:
    """The front after one more trial."""

    trial: int
    ended_ms: int
    hypervolume: float
    best_success: float | None  # None before the first episode


def front_history(front: Front, views: Sequence[TrialView]) -> list[HistoryStep]:
    """The front's growth, one step per trial, up to the first trial that still runs.

    Args:
        front: For the objectives, the reference and every finished trial's values.
        views: The trials, by number.
    """
    directions = [objective.direction for objective in front.objectives]
    points = {point.trial: point for point in front.points}
    best: float | None = None
    seen: list[list[float]] = []
    kept: list[list[float]] = []  # the front so far
    steps = []
    for view in views:
        if view.ended_ms is None or view.number not in points:
            break
        point = points[view.number]
        if point.success.success_rate is not None:
            best = max(best or 0.0, point.success.success_rate)
        if is_candidate(point, front.objectives):
            seen.append(objective_row(point, front.objectives))
            kept = [*kept, seen[-1]]
            flags = non_dominated(kept, directions)
            kept = [row for row, on_front in zip(kept, flags, strict=True) if on_front]
        corner = worst_corner(seen, front.objectives, front.reference)
        volume = hypervolume(kept, corner, directions)
        steps.append(HistoryStep(view.number, view.ended_ms, volume, best))
    return steps
