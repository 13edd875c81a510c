"""What a sweep trades, and the values that a finished trial reports for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.categories import is_success_rate
from duqsweep.control.front.measures import Direction, Measure, find_measure
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.trials.reference import Reference


@dataclass(frozen=True)
class Objective:
    """One measure that a sweep trades."""

    name: str  # of a measure
    direction: Direction

    @property
    def measure(self) -> Measure:
        """What is traded; raises ConfigError for an unknown name."""
        return find_measure(self.name)


def objective_values(
    view: TrialView,
    objectives: Sequence[Objective],
    reference: Reference | None,
    others: Sequence[TrialView] = (),
) -> tuple[float, ...] | None:
    """The values that a finished trial reports to the study, in the order of `objectives`.

    A value that the trial does not have (it crashed, or was pruned before its first episode) is the
    worst value of `others`. The success rate of a failed trial is 0. So each has values: a sampler
    ignores a trial without, and would propose the same point again.

    Returns:
        None when such a worst value does not exist either, or there is no reference yet.

    Raises:
        ConfigError: An objective is no measure of the suite.
    """
    if reference is None:
        return None
    values = []
    for objective in objectives:
        value = _value(view, objective, reference)
        if value is None:
            value = _worst(others, objective, reference)
        if value is None and others and is_success_rate(objective.name):
            value = 0.0  # nothing has succeeded yet
        if value is None:
            return None
        values.append(value)
    return tuple(values)


def _value(view: TrialView, objective: Objective, reference: Reference) -> float | None:
    value = objective.measure.read(view, reference)
    failed = view.outcome == "failed"
    return 0.0 if is_success_rate(objective.name) and failed else value


def _worst(views: Sequence[TrialView], objective: Objective, reference: Reference) -> float | None:
    read = objective.measure.read
    known = [value for view in views if (value := read(view, reference)) is not None]
    if not known:
        return None
    return max(known) if objective.direction == "minimize" else min(known)
