"""From a sweep's files to its front: the content of `front.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duqsweep.categories import is_success_rate, named_category
from duqsweep.control.front.categories import category_positions, category_results
from duqsweep.control.front.intervals import wilson
from duqsweep.control.front.objectives import Objective, measure
from duqsweep.control.front.pareto import Candidate, hypervolume, non_dominated, p_front
from duqsweep.control.front.simulator import simulator_content
from duqsweep.control.trials.reader import TrialView, read_trials
from duqsweep.control.trials.reference import Reference, sweep_reference
from duqsweep.result import ENDINGS

# Hypervolume is measured from success 0 and this multiple of the reference's time; every other
# objective from this multiple of the worst value that a trial showed.
SLACK = 1.5
# Relative standard deviation that two benchmarks of the same settings are taken to differ by.
TIME_NOISE = 0.02


def front_content(
    sweep_dir: Path,
    objectives: Sequence[Objective],
    views: Sequence[TrialView] | None = None,
) -> dict[str, Any]:
    """The content of `front.json` (DESIGN section 3) from what the folder holds now.

    Args:
        sweep_dir: The sweep's folder.
        objectives: What the sweep trades, most important first.
        views: Its trials, if they were just read.

    Raises:
        ConfigError: An objective is unknown.
    """
    views = read_trials(sweep_dir) if views is None else views
    reference = sweep_reference(sweep_dir)
    points = [_point(view, objectives, reference) for view in views if view.result]
    volume = _mark_front(points, [view for view in views if view.result], objectives, reference)
    return {
        "sweep": sweep_dir.name,
        "objectives": [{"name": o.name, "direction": o.direction} for o in objectives],
        "reference": _reference_content(views, reference),
        "simulator": simulator_content(views),
        "hypervolume": volume,
        "counts": _counts(views),
        "episodes": sum(len(view.episodes) for view in views),
        "points": points,
    }


def _counts(views: Sequence[TrialView]) -> dict[str, int]:
    found = Counter(view.outcome for view in views)
    return {name: found[name] for name in (*ENDINGS, "running", "open")}


def _reference_content(
    views: Sequence[TrialView], reference: Reference | None
) -> dict[str, Any] | None:
    if reference is None:
        return None
    named = next((view for view in views if view.trial.name == "reference" and view.result), None)
    calls = views[0].trial.spec.protocol.nominal_calls
    return {
        "call_ms": reference.call_ms,
        "nominal_calls": calls,
        "episode_time_s": reference.episode_time_s(calls),
        "timed_by_trial": reference.trial,
        "hardware": reference.hardware,
        "trial": named.number if named else None,  # the sweep's own unquantized trial
        "success_rate": named.result.success_rate if named and named.result else None,
    }


def _point(
    view: TrialView, objectives: Sequence[Objective], reference: Reference | None
) -> dict[str, Any]:
    result, vitals = view.result, view.vitals
    assert result is not None
    ran = result.episodes - result.errors
    low, high = wilson(result.successes, ran) if ran else (None, None)
    point: dict[str, Any] = {
        "trial": view.number,
        "name": view.trial.name,
        "params": view.trial.params,
        "success_rate": result.success_rate,
        "success_low": low,
        "success_high": high,
        "episodes": result.episodes,
        "successes": result.successes,
        "errors": result.errors,
        "episode_time_s": measure(view, "episode_time_s", reference) if reference else None,
        "call_ms": measure(view, "call_ms", reference) if reference else None,
        "speedup": vitals.speedup if vitals else None,
        "kernel": vitals.kernel if vitals else None,
        "compile": view.trial.spec.runtime.compile,
        "num_steps": view.trial.spec.policy.num_steps,
        "layers_quantized": vitals.layers_quantized if vitals else None,
        "mean_weight_bits": vitals.mean_weight_bits if vitals else None,
        "weights_mb": vitals.weights_mb if vitals else None,
        "action_error": vitals.action_error if vitals else None,
        "steps_to_success": view.steps_to_success,
        "on_front": False,
        "p_front": None,
        "outcome": result.outcome,
        "reason": result.reason,
        "error_type": result.error_type,
    }
    categories = category_results(view)
    if categories:
        point["categories"] = categories
    for objective in objectives:
        if objective.name not in point and reference:
            point[objective.name] = measure(view, objective.name, reference)
    return point


def _mark_front(
    points: list[dict[str, Any]],
    views: Sequence[TrialView],
    objectives: Sequence[Objective],
    reference: Reference | None,
) -> float:
    """Set on_front and p_front of every point; returns the hypervolume of the front.

    A trial is a candidate when it ran to its end and has every objective; a policy that walked
    episodes and never succeeded, where that is an objective, is not, however fast.
    """
    names = [objective.name for objective in objectives]
    directions = [objective.direction for objective in objectives]
    eligible = [
        (point, view)
        for point, view in zip(points, views, strict=True)
        if is_candidate(point, objectives)
    ]
    values = [[point[name] for name in names] for point, _view in eligible]
    flags = non_dominated(values, directions)
    chances = _chances([view for _point, view in eligible], values, objectives)
    for (point, _view), on_front, chance in zip(eligible, flags, chances, strict=True):
        point["on_front"], point["p_front"] = on_front, chance
    corner = worst_corner(values, objectives, reference, views)
    return hypervolume(values, corner, directions) if values else 0.0


def is_candidate(point: Mapping[str, Any], objectives: Sequence[Objective]) -> bool:
    """Whether a told trial may be on the front; see `_mark_front`."""
    rates = [point.get(o.name) for o in objectives if is_success_rate(o.name)]
    return bool(
        point["outcome"] == "complete"
        and all(point.get(objective.name) is not None for objective in objectives)
        and (any(rates or [point["success_rate"]]) or not point["episodes"])
    )


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
    noise = [TIME_NOISE if o.name == "episode_time_s" else 0.0 for _, o in costs]
    rates_of = [category_positions(views, named_category(name)) for name in rates]
    return [round(chance, 4) for chance in p_front(candidates, noise, rates_of=rates_of)]


def worst_corner(
    values: Sequence[Sequence[float]],
    objectives: Sequence[Objective],
    reference: Reference | None,
    views: Sequence[TrialView],
) -> list[float]:
    """The worst corner of the hypervolume, see `SLACK`; the order of trials does not matter."""
    corner = []
    for i, objective in enumerate(objectives):
        column = [row[i] for row in values]
        if objective.direction == "maximize":
            corner.append(0.0)
        elif objective.name == "episode_time_s" and reference and views:
            calls = views[0].trial.spec.protocol.nominal_calls
            corner.append(SLACK * reference.episode_time_s(calls))
        elif objective.name == "call_ms" and reference:
            corner.append(SLACK * reference.call_ms)
        else:
            corner.append(SLACK * max(column, default=0.0))
    return corner
