"""What MLflow shall hold of a sweep and of each trial, worked out from the files alone."""

from __future__ import annotations

import getpass
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duqsweep.codec import encode
from duqsweep.control.front.history import front_history
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.trials.reference import Reference
from duqsweep.control.view import wording
from duqsweep.control.view.headline import headline
from duqsweep.control.view.simulation import simulator_line, warnings

_TAG_LIMIT = 4000  # characters; MLflow's is 5000
_Metric = tuple[str, float, int, int]  # key, value, timestamp in ms, step


@dataclass(frozen=True)
class RunRecord:
    """The content of one MLflow run."""

    name: str
    params: dict[str, str]
    metrics: tuple[_Metric, ...]
    tags: dict[str, str]
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    started_ms: int
    ended_ms: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return encode(self)


def trial_record(view: TrialView, point: Mapping[str, Any] | None) -> RunRecord:
    """The run of one trial.

    Args:
        view: The trial.
        point: Its entry in `front.json`; None before it is told.
    """
    trial = view.trial
    statuses = {"running": "RUNNING", "open": "KILLED", "failed": "FAILED"}
    status = statuses.get(view.outcome, "FINISHED")
    tags = {
        "duqsweep.kind": "trial",
        "duqsweep.trial": str(view.number),
        "duqsweep.fingerprint": trial.fingerprint,
        "duqsweep.outcome": view.outcome,
        "duqsweep.front": str(bool(point and point["on_front"])).lower(),
        "mlflow.source.name": "duqsweep",
        "mlflow.user": getpass.getuser(),
    }
    if trial.name:
        tags["duqsweep.name"] = trial.name
    if point and point["p_front"] is not None:
        tags["duqsweep.p_front"] = wording.probability(point["p_front"])
    if view.vitals:
        tags["duqsweep.kernel"] = view.vitals.kernel
        if view.vitals.git:
            tags["mlflow.source.git.commit"] = view.vitals.git
    if view.result:
        tags["duqsweep.reason"] = view.result.reason[:_TAG_LIMIT]
        if view.result.traceback:
            tags["mlflow.note.content"] = f"```\n{view.result.traceback[-_TAG_LIMIT:]}\n```"
    metrics = [*_vitals_metrics(view), *_episode_metrics(view), *_result_metrics(view, point)]
    return RunRecord(
        name=f"trial {view.number} {trial.name or ''}".strip(),
        params={name: _text(value) for name, value in wording.short_params(trial.params).items()},
        metrics=tuple(metric for metric in metrics if math.isfinite(metric[1])),
        tags=tags,
        status=status,
        started_ms=view.started_ms,
        ended_ms=view.ended_ms,
    )


def _text(value: bool | int | float | str) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _vitals_metrics(view: TrialView) -> list[_Metric]:
    vitals, at = view.vitals, view.measured_ms
    if vitals is None or at is None:
        return []
    values = {
        "speedup": vitals.speedup,
        "weights_mb": vitals.weights_mb,
        "mean_weight_bits": vitals.mean_weight_bits,
        "layers_quantized": float(vitals.layers_quantized),
        "action_error": vitals.action_error,
        "call_ms": vitals.call_ms.p50,
        "call_ms_p95": vitals.call_ms.p95,
        "reference_call_ms": vitals.reference_call_ms,
        "compile_s": vitals.compile_s,
        **{f"part_ms.{name}": value for name, value in vitals.parts_ms.items()},
        **{f"modelled.{name}": value for name, value in vitals.modelled.items()},
    }
    if vitals.allocated_mb is not None:
        values["allocated_mb"] = vitals.allocated_mb
    return [(name, float(value), at, 0) for name, value in values.items()]


def _episode_metrics(view: TrialView) -> list[_Metric]:
    """One step an episode; keys differ from the objectives', which stay single values."""
    clock = float(view.measured_ms or view.started_ms)
    metrics: list[_Metric] = []
    successes = ran = 0
    for record in view.episodes:
        clock += 1000 * record.wall_s
        if record.error is not None:
            continue
        ran += 1
        successes += record.success
        at = int(clock)
        metrics.append(("episode.success_so_far", successes / ran, at, record.i))
        metrics.append(("episode.steps", float(record.steps), at, record.i))
    return metrics


def _result_metrics(view: TrialView, point: Mapping[str, Any] | None) -> list[_Metric]:
    if view.result is None or view.ended_ms is None:
        return []
    values: dict[str, Any] = {
        "episodes": view.result.episodes,
        "successes": view.result.successes,
        "errors": view.result.errors,
        "success_rate": view.result.success_rate,
        "steps_to_success": view.steps_to_success,
    }
    if point:
        values |= {name: point[name] for name in ("success_low", "success_high", "episode_time_s")}
        for category, counts in point.get("categories", {}).items():
            values[f"success_rate/{category}"] = counts["success_rate"]
    return [(k, float(v), view.ended_ms, 0) for k, v in values.items() if v is not None]


def sweep_record(
    sweep: str,
    views: Sequence[TrialView],
    content: Mapping[str, Any] | None,
    reference: Reference | None,
    final: bool,
) -> RunRecord:
    """The parent run.

    Args:
        sweep: Its name.
        views: Its trials, at least one.
        content: `front.json`'s content; None before the first trial is told.
        reference: The sweep's reference.
        final: Whether the sweep rests.
    """
    spec = views[0].trial.spec
    running = not final or any(view.result is None for view in views)
    tags = {
        "duqsweep.kind": "sweep",
        "mlflow.source.name": "duqsweep",
        "mlflow.user": getpass.getuser(),
    }
    if content:
        tags["mlflow.note.content"] = description(content)[:_TAG_LIMIT]
        tags |= _simulator_tags(content["simulator"])
    ended = [view.ended_ms for view in views if view.ended_ms is not None]
    return RunRecord(
        name=sweep,
        params={"policy": spec.policy.name, "suite": spec.protocol.suite},
        metrics=tuple(_history_metrics(views, content, reference)),
        tags=tags,
        status="RUNNING" if running else "FINISHED",
        started_ms=min(view.started_ms for view in views),
        ended_ms=None if running else max(ended),
    )


def _simulator_tags(simulator: Mapping[str, Any] | None) -> dict[str, str]:
    """What played the episodes, searchable: `tags.duqsweep.assets = "original"`."""
    if simulator is None:
        return {}
    names = ("mujoco", "robosuite", "assets", "protocol")
    tags = {f"duqsweep.{name}": str(simulator[name]) for name in names}
    return {**tags, "duqsweep.renderer": ",".join(simulator["renderers"])}


def _history_metrics(
    views: Sequence[TrialView], content: Mapping[str, Any] | None, reference: Reference | None
) -> list[_Metric]:
    """Hypervolume and best success after each trial, as far as all earlier trials have ended.

    A value that was written can then not change when an older trial ends late.
    """
    if content is None or reference is None:
        return []
    metrics: list[_Metric] = []
    at = 0
    for step in front_history(content, views, reference):
        at = max(at, step.ended_ms)
        metrics.append(("hypervolume", step.hypervolume, at, step.trial))
        if step.best_success is not None:
            metrics.append(("best_success_rate", step.best_success, at, step.trial))
    return metrics


def _played(point: Mapping[str, Any]) -> list[str]:
    rate, time_s = point["success_rate"], point["episode_time_s"]
    return [wording.percent(rate), wording.interval(point), wording.seconds(time_s)]


def _timed(point: Mapping[str, Any]) -> list[str]:
    facts = (wording.number(point[name]) for name in ("weights_mb", "action_error"))
    return [wording.milliseconds(point["call_ms"]), *facts]


def description(content: Mapping[str, Any]) -> str:
    """The front as Markdown, for the parent run's page."""
    lines = [headline(content), "", f"{wording.counts_line(content)}", ""]
    for warning in warnings(content["simulator"]):
        lines += [f"**{warning}**", ""]
    plays = wording.plays(content)
    results = ["success", "95 %", "time"] if plays else ["call", "weights [MB]", "action error"]
    names = wording.categories(content["points"])
    categories = [f"{name} [%]" for name in names]
    header = ["trial", *results, *categories, "speed-up", "kernel", "settings"]
    lines += [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for point in wording.front_points(content):
        cells = [
            wording.label(point),
            *(_played(point) if plays else _timed(point)),
            *(wording.category_cell(point, name) for name in names),
            wording.ratio(point["speedup"]),
            point["kernel"] or wording.NONE,
            f"`{wording.settings(wording.telling_params(point, content))}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    played_by = simulator_line(content["simulator"])
    lines += ["", played_by] if played_by else []
    lines += ["", "Open `report.html` under *Artifacts* for the picture and every trial."]
    return "\n".join(lines)
