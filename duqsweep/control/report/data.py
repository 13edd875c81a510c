"""What the script of `report.html` shows, as JSON that the page carries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from duqsweep.categories import is_success_rate
from duqsweep.control.front.formats import milliseconds, number, probability
from duqsweep.control.front.measures import MEASURES, SUCCESS_RATE, Measure
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.report.bits import BitsTable
from duqsweep.control.report.films import Film
from duqsweep.control.report.picture import LOG_FROM_RATIO, axes_of, is_joined
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view import wording
from duqsweep.result import SuccessCounts

P_FRONT = "p(front)"
PARTS = {"llm": "LLM", "dit": "DiT"}  # keys of `parts_ms` as people write them


def report_data(
    front: Front,
    views: Sequence[TrialView],
    films: Sequence[Film],
    tasks: Sequence[str],
    folder: str,
) -> dict[str, Any]:
    """The content of the page's `<script type="application/json">`.

    Args:
        front: Of the sweep.
        views: The sweep's trials.
        films: The videos that lie beside the page.
        tasks: The instruction of each task, as far as known.
        folder: The sweep's folder as a shell reads it, for commands.
    """
    y_axis, x_axis = axes_of(front.objectives)
    bits = BitsTable(views)
    by_number = {view.number: view for view in views}
    trials = [
        _trial(point, by_number.get(point.trial), front, (x_axis, y_axis), bits)
        for point in front.points
    ]
    return {
        "folder": folder,
        "plays": front.plays,
        "joined": is_joined(front),
        "logFromRatio": LOG_FROM_RATIO,
        "x": _axis(x_axis, front),
        "y": _axis(y_axis, front),
        "tasks": list(tasks),
        "trials": trials,
        "bits": bits.to_json(),
        "films": [{"path": f.path, "trials": f.trials, "caption": f.caption} for f in films],
    }


def _axis(measure: Measure, front: Front) -> dict[str, Any]:
    return {
        "label": wording.axis_label(measure, front).partition("\n")[0],
        "column": measure.column,
        "direction": measure.direction,
        "rate": is_success_rate(measure.name),
        "reference": front.reference.value(measure) if front.reference else None,
    }


def _trial(
    point: FrontPoint,
    view: TrialView | None,
    front: Front,
    axes: tuple[Measure, Measure],
    bits: BitsTable,
) -> dict[str, Any]:
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
        **(_of_view(view, bits) if view else {}),
    }


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
