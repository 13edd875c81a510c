"""How a sweep's front grew, trial by trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.control.front.content import is_candidate, objective_row, worst_corner
from duqsweep.control.front.pareto import hypervolume
from duqsweep.control.front.records import Front, FrontPoint, FrontReference
from duqsweep.control.trials.reader import TrialView


@dataclass(frozen=True)
class HistoryStep:
    """The front after one more trial."""

    trial: int
    ended_ms: int
    hypervolume: float
    best_success: float | None  # None before the first episode


class FrontHistory:
    """Follows a growing front; only new trials cost more than a look."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._forget()

    def _forget(self) -> None:
        self._reference: FrontReference | None = None
        self._seen: list[FrontPoint] = []  # by number
        self._steps: list[HistoryStep] = []
        self._kept: list[list[float]] = []  # the front so far
        self._worst: list[float] = []  # the largest value in each objective so far
        self._best: float | None = None
        self._corner: Sequence[float] | None = None  # that the volume is measured to
        self._volume = 0.0

    def steps(self, front: Front, views: Sequence[TrialView]) -> list[HistoryStep]:
        """The front's growth, one step per trial, up to the first trial that still runs.

        Args:
            front: For the objectives, the reference and every finished trial's values.
            views: The trials, by number.
        """
        points = {point.trial: point for point in front.points}
        ended = []
        for view in views:
            if view.ended_ms is None or view.number not in points:
                break
            ended.append((view, points[view.number]))
        if front.reference != self._reference or not self._continues(ended, front):
            self._forget()
            self._reference = front.reference
        for view, point in ended[len(self._steps) :]:
            self._add(view, point, front)
        return self._steps

    def _continues(self, ended: Sequence[tuple[TrialView, FrontPoint]], front: Front) -> bool:
        """Whether the trials begin with those that were seen, with the same values."""
        now = [point for _, point in ended[: len(self._seen)]]
        same = len(now) == len(self._seen) and all(
            new is old or (new.trial == old.trial and _row(new, front) == _row(old, front))
            for new, old in zip(now, self._seen, strict=True)
        )
        self._seen = now if same else self._seen
        return same

    def _add(self, view: TrialView, point: FrontPoint, front: Front) -> None:
        assert view.ended_ms is not None
        directions = [objective.direction for objective in front.objectives]
        if point.success.success_rate is not None:
            self._best = max(self._best or 0.0, point.success.success_rate)
        row = _row(point, front)
        self._seen.append(point)
        if row is not None:
            self._worst = [max(pair) for pair in zip(self._worst or row, row, strict=True)]
        joins = row is not None and self._join(row, directions)
        corner = worst_corner(
            [self._worst] if self._worst else [], front.objectives, front.reference
        )
        if joins or corner != self._corner:
            self._volume = hypervolume(self._kept, corner, directions)
            self._corner = corner
        self._steps.append(HistoryStep(view.number, view.ended_ms, self._volume, self._best))

    def _join(self, row: list[float], directions: Sequence[str]) -> bool:
        """Add a trial to the front so far; False for one that is dominated."""
        if any(_dominates(other, row, directions) for other in self._kept):
            return False
        self._kept = [other for other in self._kept if not _dominates(row, other, directions)]
        self._kept.append(row)
        return True


def _dominates(one: list[float], other: list[float], directions: Sequence[str]) -> bool:
    """Whether one row is as good as another in every objective and better in one."""
    for mine, its, direction in zip(one, other, directions, strict=True):
        if mine < its if direction == "maximize" else mine > its:
            return False
    return one != other


def _row(point: FrontPoint, front: Front) -> list[float] | None:
    """A trial's values; None for one that cannot be on the front."""
    is_one = is_candidate(point, front.objectives)
    return objective_row(point, front.objectives) if is_one else None
