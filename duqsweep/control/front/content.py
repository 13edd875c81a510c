"""From the files of a sweep's trials to its front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from duqsweep.categories import SUCCESS_RATE, is_success_rate, named_category
from duqsweep.control.front.measures import EPISODE_TIME_S, measures_of
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.pareto import Candidate, hypervolume, non_dominated, p_front
from duqsweep.control.front.records import Front, FrontPoint, FrontReference
from duqsweep.control.front.simulator import sweep_simulator
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.front.verdict import MARGIN, Verdict, verdict
from duqsweep.control.trials.reader import TrialView, read_trials
from duqsweep.control.trials.reference import Reference, sweep_reference
from duqsweep.result import ENDINGS

# Hypervolume is measured from success 0 and this multiple of the reference's time; every other
# objective from this multiple of the worst value of a trial.
SLACK = 1.5
REFERENCE = "reference"  # the plan of the unquantized policy


def compute_front(
    sweep_dir: Path,
    objectives: Sequence[Objective],
    views: Sequence[TrialView] | None = None,
    margin: float = MARGIN,
) -> Front:
    """The front from what a sweep's folder holds now.

    Args:
        sweep_dir: The sweep's folder.
        objectives: What the sweep trades, most important first.
        views: Its trials, if they were just read.
        margin: Loss of success rate that the verdict tolerates.

    Raises:
        ConfigError: An objective is unknown.
    """
    views = read_trials(sweep_dir) if views is None else views
    timed = sweep_reference(sweep_dir)
    reference = _reference(views, timed)
    ended = [view for view in views if view.result]
    points = [_point(view, timed) for view in ended]
    candidates = [
        (point, view)
        for point, view in zip(points, ended, strict=True)
        if is_candidate(point, objectives)
    ]
    values = [objective_row(point, objectives) for point, _view in candidates]
    directions = [objective.direction for objective in objectives]
    flags = non_dominated(values, directions)
    chances = _chances([view for _point, view in candidates], values, objectives)
    judged = {
        point.trial: replace(point, on_front=on_front, p_front=chance)
        for (point, _view), on_front, chance in zip(candidates, flags, chances, strict=True)
    }
    corner = worst_corner(values, objectives, reference)
    return Front(
        sweep=sweep_dir.name,
        objectives=tuple(objectives),
        reference=reference,
        simulator=sweep_simulator(views),
        hypervolume=hypervolume(values, corner, directions) if values else 0.0,
        counts=_counts(views),
        episodes=sum(len(view.episodes) for view in views),
        points=tuple(judged.get(point.trial, point) for point in points),
        verdict=_verdict(ended, judged, margin),
    )


def _verdict(
    views: Sequence[TrialView], judged: Mapping[int, FrontPoint], margin: float
) -> Verdict | None:
    """None where the unquantized policy has no trial of its own, or has played nothing."""
    named = next((view for view in views if view.trial.name == REFERENCE), None)
    if named is None or not named.counts.ran:
        return None
    times = {
        number: time
        for number, point in judged.items()
        if (point.on_front or number == named.number)
        and (time := point.value(EPISODE_TIME_S)) is not None
    }
    candidates = [(view, times[view.number]) for view in views if view.number in times]
    return verdict(candidates, named, margin)


def _counts(views: Sequence[TrialView]) -> dict[str, int]:
    found = Counter(view.outcome for view in views)
    return {name: found[name] for name in (*ENDINGS, "running", "open")}


def _reference(views: Sequence[TrialView], timed: Reference | None) -> FrontReference | None:
    if timed is None or not views:
        return None
    named = next((view for view in views if view.trial.name == REFERENCE and view.result), None)
    calls = views[0].trial.spec.suite.nominal_calls
    return FrontReference(
        call_ms=timed.call_ms,
        nominal_calls=calls,
        episode_time_s=timed.episode_time_s(calls),
        timed_by_trial=timed.trial,
        hardware=timed.hardware,
        trial=named.number if named else None,
        success_rate=named.result.success_rate if named and named.result else None,
    )


def _point(view: TrialView, reference: Reference | None) -> FrontPoint:
    result, vitals, spec = view.result, view.vitals, view.trial.spec
    assert result is not None
    measures = measures_of(spec.suite)
    values = {name: measure.read(view, reference) for name, measure in measures.items()}
    del values[SUCCESS_RATE]  # part of the estimate
    return FrontPoint(
        trial=view.number,
        name=view.trial.name,
        params=view.trial.params,
        success=SuccessEstimate.of(result.counts),
        measures=values,
        kernel=vitals.kernel if vitals else None,
        compile=spec.runtime.compile,
        num_steps=spec.policy.num_steps,
        layers_quantized=vitals.layers_quantized if vitals else None,
        on_front=False,
        p_front=None,
        outcome=result.outcome,
        reason=result.reason,
        error_type=result.error_type,
        categories={name: SuccessEstimate.of(c) for name, c in view.categories.items()},
    )


def is_candidate(point: FrontPoint, objectives: Sequence[Objective]) -> bool:
    """Whether a finished trial may be on the front.

    It must have run to its end and have every objective. A policy that played episodes and never
    succeeded, where that is an objective, is none, however fast.
    """
    rates = [point.value(o.measure) for o in objectives if is_success_rate(o.name)]
    return (
        point.outcome == "complete"
        and all(point.value(objective.measure) is not None for objective in objectives)
        and (any(rates or [point.success.success_rate]) or not point.success.counts.episodes)
    )


def objective_row(point: FrontPoint, objectives: Sequence[Objective]) -> list[float]:
    """The values of a candidate, in the order of `objectives`."""
    values = [point.value(objective.measure) for objective in objectives]
    return [value for value in values if value is not None]


def _chances(
    views: Sequence[TrialView], values: Sequence[Sequence[float]], objectives: Sequence[Objective]
) -> Sequence[float | None]:
    """The probability of each to be on the front; None where success is no objective."""
    rates = [objective.name for objective in objectives if is_success_rate(objective.name)]
    if not rates:
        return [None] * len(views)
    costs = [(i, o) for i, o in enumerate(objectives) if not is_success_rate(o.name)]
    candidates = [
        Candidate(
            outcomes={e.i: e.success for e in view.episodes if e.error is None},
            costs=tuple(-row[i] if o.direction == "maximize" else row[i] for i, o in costs),
        )
        for view, row in zip(views, values, strict=True)
    ]
    noise = [objective.measure.noise for _, objective in costs]
    rates_of = [_category_positions(views, named_category(name)) for name in rates]
    return [round(chance, 4) for chance in p_front(candidates, noise, rates_of=rates_of)]


def _category_positions(views: Sequence[TrialView], category: str | None) -> set[int] | None:
    """Ledger positions of a category's episodes; None stands for all."""
    if category is None:
        return None
    return {
        e.i
        for view in views
        for e in view.episodes
        if view.trial.spec.suite.category(e.task) == category
    }


def worst_corner(
    values: Sequence[Sequence[float]],
    objectives: Sequence[Objective],
    reference: FrontReference | None,
) -> list[float]:
    """The worst corner of the hypervolume, see `SLACK`; the order of trials does not matter."""
    corner = []
    for i, objective in enumerate(objectives):
        worst = max((row[i] for row in values), default=0.0)
        at_reference = reference.value(objective.measure) if reference else None
        known = worst if at_reference is None else at_reference
        corner.append(0.0 if objective.direction == "maximize" else SLACK * known)
    return corner
