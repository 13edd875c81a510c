"""What the script of `report.html` shows, as JSON that the page carries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from duqsweep.categories import is_success_rate
from duqsweep.control.front.factors import Form, Timings
from duqsweep.control.front.formats import milliseconds, number, probability, ratio
from duqsweep.control.front.measures import MEASURES, SUCCESS_RATE, Measure
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.report.bits import BitsTable
from duqsweep.control.report.films import Film
from duqsweep.control.report.picture import LOG_FROM_RATIO, axes_of, is_joined
from duqsweep.control.report.surroundings import Surroundings
from duqsweep.control.trials.reader import REFERENCE, TrialView
from duqsweep.control.view import wording
from duqsweep.control.view.headline import fastest_confirmed
from duqsweep.control.view.tables import EPISODE_COLUMN
from duqsweep.result import SuccessCounts, Vitals
from duqsweep.spec import Trial

P_FRONT = "p(front)"
PARTS = {"llm": "LLM", "dit": "DiT"}  # keys of `parts_ms` as people write them


def report_data(
    front: Front, views: Sequence[TrialView], around: Surroundings, films: Sequence[Film]
) -> dict[str, Any]:
    """The content of the page's `<script type="application/json">`.

    Args:
        front: Of the sweep.
        views: The sweep's trials.
        around: What else is known.
        films: The videos that lie beside the page.
    """
    y_axis, x_axis = axes_of(front.objectives)
    bits = BitsTable(views)
    by_number = {view.number: view for view in views}
    trials = []
    for point in front.points:
        view = by_number.get(point.trial)
        trial = _trial(point, front, (x_axis, y_axis))
        trial |= _of_view(view, bits) if view else {}
        if view and view.vitals and point.on_front:
            trial["twin"] = _twin_parts(view.trial, view.vitals, around.timings)
        trials.append(trial | {"again": around.again.get(point.trial)})
    return {
        "folder": around.folder,
        "plays": front.plays,
        "joined": is_joined(front),
        "logFromRatio": LOG_FROM_RATIO,
        "x": _axis(x_axis, front),
        "y": _axis(y_axis, front),
        "tasks": list(around.instructions),
        "first": _first(front),
        "trials": trials,
        "bits": bits.to_json(),
        "films": [{"path": f.path, "trials": f.trials, "caption": f.caption} for f in films],
    }


def _first(front: Front) -> int | None:
    """The trial that is shown first: one that is confirmed, the verdict's, or the front's best."""
    confirmed = fastest_confirmed(front)
    if confirmed is not None:
        return confirmed.trial
    if front.verdict is not None and front.verdict.trial is not None:
        return front.verdict.trial
    best = [point.trial for point in front.members if point.name != REFERENCE]
    return next(iter(best), None)


def _axis(measure: Measure, front: Front) -> dict[str, Any]:
    return {
        "label": wording.axis_label(measure, front).partition("\n")[0],
        "column": measure.column,
        "direction": measure.direction,
        "rate": is_success_rate(measure.name),
        "reference": front.reference.value(measure) if front.reference else None,
    }


def _trial(point: FrontPoint, front: Front, axes: tuple[Measure, Measure]) -> dict[str, Any]:
    x_axis, y_axis = axes
    rate = point.estimate(y_axis) if is_success_rate(y_axis.name) else None
    return {
        "trial": point.trial,
        "label": wording.point_label(point),
        "plan": point.name,
        "outcome": point.outcome,
        "reason": wording.cause(point.error_type, point.reason),
        "front": point.on_front,
        "state": point.state,
        "kernel": point.kernel or "",
        "x": point.value(x_axis),
        "y": point.value(y_axis),
        "low": rate.success_low if rate else None,
        "high": rate.success_high if rate else None,
        "summary": wording.point_summary(point),
        "settings": [[key, number(value)] for key, value in point.params.items()],
        "measures": list(_measures(point, front)),
        "factors": _factors(point),
    }


def _factors(point: FrontPoint) -> list[tuple[str, str]]:
    """What the speed-up is made of; empty where that is not known."""
    found = point.factors
    if found is None:
        return []
    named = {
        "fewer steps": found.steps,
        "compilation": found.compile,
        "quantization": found.quantization,
        "fewer calls": found.replan,
        "in all, per episode": found.episode,
    }
    return [(name, ratio(value)) for name, value in named.items()]


def _twin_parts(trial: Trial, vitals: Vitals, timings: Timings) -> list[tuple[str, str]]:
    """Times of the parts of the unquantized twin, at this trial's node; empty if not known."""
    timing = timings.of(Form.twin(trial.spec)) if vitals.layers_quantized else None
    if timing is None:
        return []
    scale = vitals.reference_call_ms / timing.reference_call_ms
    return [(PARTS.get(p, p), milliseconds(scale * ms)) for p, ms in timing.parts_ms.items()]


def _measures(point: FrontPoint, front: Front) -> list[tuple[str, str]]:
    """Every number that the trial has, with its name, as tables show it."""
    found = []
    if point.success.success_rate is not None:
        text = f"{wording.successes(point.success)} ({wording.interval(point.success)})"
        found.append((SUCCESS_RATE.column, text))
    found += [
        (measure.column, f"{point.text(measure)}{_unit(measure)}")
        for measure in MEASURES.values()
        if measure is not SUCCESS_RATE and point.value(measure) is not None
    ]
    if front.plays and (times := front.episode_speedup(point)) is not None:
        found.insert(2, (EPISODE_COLUMN, ratio(times)))
    if front.plays and point.p_front is not None:
        found.append((P_FRONT, probability(point.p_front)))
    return found


def _unit(measure: Measure) -> str:
    """The unit where neither the text nor the column has it."""
    shows = measure.text(1.0) != number(1.0) or f"[{measure.unit}]" in measure.column
    return "" if shows or not measure.unit else f" ({measure.unit})"


def _of_view(view: TrialView, bits: BitsTable) -> dict[str, Any]:
    """What only the trial's own files have."""
    found: dict[str, Any] = {"tasks": _tasks(view), "errors": _errors(view)}
    vitals = view.vitals
    if vitals is not None:
        call = vitals.call_ms
        found["stages"] = wording.stage_times(vitals)
        found["bits"] = bits.number(vitals.bits)
        found["parts"] = [
            [PARTS.get(part, part), ms, milliseconds(ms)] for part, ms in vitals.parts_ms.items()
        ]
        found["calls"] = (
            f"as timed there: median {milliseconds(call.p50)}, 95 % below "
            f"{milliseconds(call.p95)}, {call.n} calls; the reference beside it "
            f"{milliseconds(vitals.reference_call_ms)}"
        )
        rotations = vitals.modelled.get("rotations_per_call")
        found["rotations"] = None if rotations is None else f"{rotations:,.0f}"
        found["layers"] = vitals.layers_quantized
    return found


def _tasks(view: TrialView) -> list[tuple[int, int, int]]:
    """Task, successes, episodes that ran; of each task that was played."""
    played: dict[int, list[Any]] = {}
    for record in view.episodes:
        played.setdefault(record.task, []).append(record)
    counts = {task: SuccessCounts.of(records) for task, records in sorted(played.items())}
    return [(task, c.successes, c.ran) for task, c in counts.items()]


def _errors(view: TrialView) -> list[tuple[str, int]]:
    """Why episodes ended in errors, and how many of each kind."""
    found: Mapping[str, int] = Counter(e.error for e in view.episodes if e.error is not None)
    return list(found.items())
