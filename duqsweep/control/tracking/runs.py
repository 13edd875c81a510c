"""The MLflow runs of a sweep and of its trials, computed from the files alone."""

from __future__ import annotations

import getpass
import math
from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.categories import named_category
from duqsweep.codec import encode
from duqsweep.control.front import formats
from duqsweep.control.front.history import FrontHistory
from duqsweep.control.front.measures import SUCCESS_RATE, measures_of
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.front.simulator import SweepSimulator
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.trials.reference import Reference
from duqsweep.control.view import wording
from duqsweep.control.view.headline import first_line
from duqsweep.control.view.simulation import simulator_line, warnings

# Outcomes of trials; all others are FINISHED.
_STATUSES = {"running": "RUNNING", "open": "KILLED", "failed": "FAILED", "stopped": "KILLED"}
_TAG_LIMIT = 4000  # characters; MLflow's is 5000
P_FRONT_TAG = "duqsweep.p_front"
Metric = tuple[str, float, int, int]  # key, value, timestamp in ms, step


@dataclass(frozen=True)
class RunRecord:
    """The content of one MLflow run."""

    name: str
    params: dict[str, str]
    metrics: tuple[Metric, ...]  # in an order in which later ones are only added at the end
    tags: dict[str, str]
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    started_ms: int
    ended_ms: int | None


def trial_record(
    view: TrialView, point: FrontPoint | None, reference: Reference | None
) -> RunRecord:
    """The run of one trial.

    Args:
        view: The trial.
        point: Its place in the front; None before the trial has one.
        reference: The sweep's.
    """
    trial = view.trial
    status = _STATUSES.get(view.outcome, "FINISHED")
    tags = {
        "duqsweep.kind": "trial",
        "duqsweep.trial": str(view.number),
        "duqsweep.fingerprint": trial.fingerprint,
        "duqsweep.outcome": view.outcome,
        "duqsweep.front": str(point is not None and point.on_front).lower(),
        "mlflow.source.name": "duqsweep",
        "mlflow.user": getpass.getuser(),
    }
    if trial.name:
        tags["duqsweep.name"] = trial.name
    if point and point.p_front is not None:
        tags[P_FRONT_TAG] = formats.probability(point.p_front)
    if point and point.factors:
        tags["duqsweep.twin"] = point.factors.twin
    if view.vitals:
        tags["duqsweep.kernel"] = view.vitals.kernel
        if view.vitals.git:
            tags["mlflow.source.git.commit"] = view.vitals.git
    if view.result:
        tags["duqsweep.reason"] = view.result.reason[:_TAG_LIMIT]
        tags["mlflow.note.content"] = trial_note(view, point)
    metrics = [
        *_measure_metrics(view, reference, of_episodes=False),
        *_vitals_metrics(view),
        *_factor_metrics(view, point),
        *_episode_metrics(view),
        *_measure_metrics(view, reference, of_episodes=True),
        *_success_metrics(view),
    ]
    return RunRecord(
        name=f"trial {view.number} {trial.name or ''}".strip(),
        params={name: _text(value) for name, value in wording.short_params(trial.params).items()},
        metrics=tuple(metric for metric in metrics if math.isfinite(metric[1])),
        tags=tags,
        status=status,
        started_ms=view.started_ms,
        ended_ms=view.ended_ms,
    )


def trial_note(view: TrialView, point: FrontPoint | None) -> str:
    """A trial that has ended, as Markdown for its run's page."""
    assert view.result is not None
    if view.result.traceback:
        return f"```\n{view.result.traceback[-_TAG_LIMIT:]}\n```"
    if point is None:
        return wording.result_text(view.result)
    lines = [wording.point_summary(point)]
    if point.on_front:
        lines += ["", f"**On the front**, {point.state} on reserved states."]
    if view.result.outcome == "stopped":
        lines += ["", f"Stopped: {view.result.reason}"]
    lines += [
        "",
        "*Artifacts* has its spec, its vitals, its log and its videos; the settings for use "
        f"elsewhere: `python -m duqsweep export DIR --trial {view.number}`.",
    ]
    return "\n".join(lines)[:_TAG_LIMIT]


def experiment_note(front: Front) -> str:
    """A sweep in some lines of Markdown, for its experiment's page."""
    said = [first_line(front), wording.counts_line(front)]
    objectives = ", ".join(
        f"{objective.direction} {objective.measure.label}" for objective in front.objectives
    )
    lines = [f"**duqsweep, sweep {front.sweep}**: {objectives}.", *said]
    return "\n\n".join(lines)[:_TAG_LIMIT]


def _text(value: bool | int | float | str) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _measure_metrics(
    view: TrialView, reference: Reference | None, of_episodes: bool
) -> list[Metric]:
    """The measures that the trial has so far; of a category: `success_rate/object`."""
    metrics: list[Metric] = []
    at = view.ended_ms if of_episodes else view.measured_ms
    for name, measure in measures_of(view.trial.spec.suite).items():
        value = measure.read(view, reference) if measure.needs_episodes == of_episodes else None
        if value is not None and at is not None:
            metrics.append((name.replace(".", "/"), float(value), at, 0))
    return metrics


def _vitals_metrics(view: TrialView) -> list[Metric]:
    vitals, at = view.vitals, view.measured_ms
    if vitals is None or at is None:
        return []
    values = {
        "layers_quantized": float(vitals.layers_quantized),
        "node_call_ms": vitals.call_ms.p50,  # `call_ms` is scaled to the sweep's reference
        "node_call_ms_p95": vitals.call_ms.p95,
        "node_reference_call_ms": vitals.reference_call_ms,
        "compile_s": vitals.compile_s,
        **{f"part_ms.{name}": value for name, value in vitals.parts_ms.items()},
        **{f"stage_ms.{name}": value for name, value in (vitals.stages_ms or {}).items()},
        **{f"modelled.{name}": value for name, value in vitals.modelled.items()},
    }
    if vitals.allocated_mb is not None:
        values["allocated_mb"] = vitals.allocated_mb
    return [(name, float(value), at, 0) for name, value in values.items()]


def _factor_metrics(view: TrialView, point: FrontPoint | None) -> list[Metric]:
    """What the speed-up of an episode is the product of; nothing before the twin was timed."""
    if point is None or point.factors is None or view.measured_ms is None:
        return []
    factors = encode(point.factors)
    del factors["twin"]  # a tag
    values = {**factors, "episode": point.factors.episode}
    return [(f"speedup.{name}", value, view.measured_ms, 0) for name, value in values.items()]


def _episode_metrics(view: TrialView) -> list[Metric]:
    """How the success rate settled; the key differs from the objective's, a single value.

    Episodes end in any order. Steps are in ledger order, up to the first one that has not ended,
    so that what is once logged stays true; there are about ten per tenfold, because MLflow takes
    long for each. The clock runs as if they were played one by one.
    """
    clock = float(view.measured_ms or view.started_ms)
    metrics: list[Metric] = []
    successes = ran = 0
    for i, record in enumerate(view.episodes):
        if record.i != i:
            break
        clock += 1000 * record.wall_s
        if record.error is not None:
            continue
        ran += 1
        successes += record.success
        if _is_shown(ran):
            metrics.append(("episode.success_so_far", successes / ran, int(clock), record.i))
    return metrics


def _is_shown(count: int) -> bool:
    """Whether a success rate over so many episodes is a point of the series."""
    tens: int = 10 ** (len(str(count)) - 1)
    return count % tens == 0 or 2 * count in (3 * tens, 5 * tens)


def _success_metrics(view: TrialView) -> list[Metric]:
    """The counts and the interval of the success rate."""
    if view.result is None or view.ended_ms is None:
        return []
    values = encode(SuccessEstimate.of(view.result.counts))
    del values[SUCCESS_RATE.name]  # is among the measures
    known = {name: float(value) for name, value in values.items() if value is not None}
    return [(name, value, view.ended_ms, 0) for name, value in known.items()]


def sweep_record(
    sweep: str,
    views: Sequence[TrialView],
    front: Front | None,
    final: bool,
    history: FrontHistory,
) -> RunRecord:
    """The parent run.

    Args:
        sweep: Its name.
        views: Its trials, at least one.
        front: Of the sweep; None before the first trial has a result.
        final: Whether the controller has ended.
        history: Of the front; kept from one call to the next.
    """
    spec = views[0].trial.spec
    stopped = any(view.status is not None and view.status.state == "stopped" for view in views)
    running = not final or any(view.result is None for view in views)
    tags = {
        "duqsweep.kind": "sweep",
        "mlflow.source.name": "duqsweep",
        "mlflow.user": getpass.getuser(),
    }
    if front:
        tags["mlflow.note.content"] = description(front)[:_TAG_LIMIT]
        tags |= _simulator_tags(front.simulator)
    ended = [view.ended_ms for view in views if view.ended_ms is not None]
    return RunRecord(
        name=sweep,
        params={"policy": spec.policy.name, "suite": spec.suite.name},
        metrics=tuple(_history_metrics(views, front, history)),
        tags=tags,
        status="RUNNING" if running else "KILLED" if stopped else "FINISHED",
        started_ms=min(view.started_ms for view in views),
        ended_ms=None if running else max(ended),
    )


def _simulator_tags(simulator: SweepSimulator | None) -> dict[str, str]:
    """What played the episodes, searchable: `tags.duqsweep.assets = "original"`."""
    if simulator is None:
        return {}
    info = simulator.info
    return {
        "duqsweep.mujoco": info.mujoco,
        "duqsweep.robosuite": info.robosuite,
        "duqsweep.assets": info.assets,
        "duqsweep.protocol": simulator.protocol,
        "duqsweep.renderer": ",".join(simulator.renderers),
    }


def _history_metrics(
    views: Sequence[TrialView], front: Front | None, history: FrontHistory
) -> list[Metric]:
    """Hypervolume and best success after each trial, as far as all earlier trials have ended.

    A value that was written can then not change when an older trial ends late.
    """
    if front is None or front.reference is None:
        return []
    metrics: list[Metric] = []
    at = 0
    for step in history.steps(front, views):
        at = max(at, step.ended_ms)
        metrics.append(("hypervolume", step.hypervolume, at, step.trial))
        if step.best_success is not None:
            metrics.append(("best_success_rate", step.best_success, at, step.trial))
    return metrics


def description(front: Front) -> str:
    """The front as Markdown, for the parent run's page."""
    said = [first_line(front), wording.counts_line(front)]
    lines = [line for sentence in said for line in (sentence, "")]
    for warning in warnings(front.simulator):
        lines += [f"**{warning}**", ""]
    measures = [m for m in wording.shown_measures(front) if named_category(m.name) is None]
    names = wording.categories(front.points)
    header = ["trial"]
    for measure in measures:
        header += [measure.column, *(["95 %"] if measure is SUCCESS_RATE else [])]
    header += [*(f"{name} [%]" for name in names), "kernel", "settings"]
    lines += [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for point in front.members:
        cells = [wording.point_label(point)]
        for measure in measures:
            interval = [wording.interval(point.success)] if measure is SUCCESS_RATE else []
            cells += [point.text(measure), *interval]
        cells += [wording.category_cell(point, name) for name in names]
        settings = wording.telling_settings(point.params, front)
        cells += [point.kernel or formats.NONE, f"`{settings}`"]
        lines.append(f"| {' | '.join(cells)} |")
    played_by = simulator_line(front.simulator)
    lines += ["", played_by] if played_by else []
    lines += ["", "Open `report.html` under *Artifacts* for the picture and every trial."]
    return "\n".join(lines)
