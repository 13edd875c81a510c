"""How a sweep's front grew, trial by trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duqsweep.control.front.content import is_candidate, worst_corner
from duqsweep.control.front.pareto import hypervolume, non_dominated
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.trials.reference import Reference


@dataclass(frozen=True)
class _Named:
    name: str
    direction: str


@dataclass(frozen=True)
class HistoryStep:
    """The front after one more trial."""

    trial: int
    ended_ms: int
    hypervolume: float
    best_success: float | None  # None before the first episode


def front_history(
    content: Mapping[str, Any], views: Sequence[TrialView], reference: Reference
) -> list[HistoryStep]:
    """The front's growth, a step a trial, up to the first trial that still runs.

    Args:
        content: `front_content`'s, for the objectives and every told value.
        views: The trials, by number.
        reference: The sweep's.
    """
    objectives = [_Named(o["name"], o["direction"]) for o in content["objectives"]]
    directions = [objective.direction for objective in objectives]
    points = {point["trial"]: point for point in content["points"]}
    best: float | None = None
    seen: list[list[float]] = []
    kept: list[list[float]] = []  # the front so far
    steps = []
    for view in views:
        if view.ended_ms is None or view.number not in points:
            break
        point = points[view.number]
        if point["success_rate"] is not None:
            best = max(best or 0.0, point["success_rate"])
        if is_candidate(point, objectives):
            seen.append([point[objective.name] for objective in objectives])
            kept = [*kept, seen[-1]]
            flags = non_dominated(kept, directions)
            kept = [row for row, on_front in zip(kept, flags, strict=True) if on_front]
        corner = worst_corner(seen, objectives, reference, views)
        volume = hypervolume(kept, corner, directions)
        steps.append(HistoryStep(view.number, view.ended_ms, volume, best))
    return steps
