"""`duqsweep status DIR`: what a sweep has done, what runs now, and how its jobs failed."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from duqsweep import files
from duqsweep.codec import encode
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.measures import CALL_MS, SPEEDUP
from duqsweep.control.trials.reader import TrialReader, TrialView, deaths_of
from duqsweep.control.trials.reference import Reference, readable_reference
from duqsweep.control.view import wording
from duqsweep.control.view.console import open_console
from duqsweep.control.view.tables import new_table
from duqsweep.errors import DispatchError, EvaluationError
from duqsweep.result import Throughput
from duqsweep.verbs.folder import sweep_config, sweep_front

if TYPE_CHECKING:
    from duqsweep.control.dispatch.launch import JobView


def main(arguments: list[str]) -> int:
    """Print a row per trial, or with --json everything as data; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep status", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    reader = TrialReader(config.directory)
    views = reader.read()
    front = sweep_front(config, views)
    reference = readable_reference(config.directory, views)
    jobs = _jobs(config)
    controller = _controller(config)
    state = {
        "sweep": config.name,
        "controller": controller,
        "stop_requested": (config.directory / files.STOP).exists(),
        "counts": front.counts,
        "episodes": front.episodes,
        "front": [point.trial for point in front.points if point.on_front],
        "trials": [
            _trial(config.directory, view, reference) | {"job_state": jobs.get(view.number)}
            for view in views
        ],
        "damaged": reader.damaged,
    }
    if parsed.json:
        json.dump(state, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        _print(state)
    return 0


def _jobs(config: SweepConfig) -> dict[int, dict[str, str]]:
    """State (queued, held, running, ...) and reason of the jobs that work on trials."""
    if not any((config.directory / files.WORKERS_DIR).glob("*")):
        return {}
    from duqsweep.control.dispatch.states import job_states  # submitit is slow to import

    views: dict[int, JobView] = job_states(config.launcher, config.directory)
    return {number: {"state": view.state, "reason": view.reason} for number, view in views.items()}


def _controller(config: SweepConfig) -> dict[str, str | None] | None:
    """The job that is the sweep's controller, if --as-job submitted one."""
    if not (config.directory / files.CONTROLLER_DIR).exists():
        return None
    from duqsweep.control.dispatch.controller_job import ControllerJob

    job = ControllerJob(config.directory)
    try:
        view = job.view()
    except DispatchError:
        return {"job_id": None, "state": "unknown", "reason": "", "log": str(job.log)}
    if view is None:
        return None
    return {
        "job_id": view.job_id,
        "state": view.state,
        "reason": view.reason,
        "log": str(job.log),
    }


def _state(trial: dict[str, Any]) -> str:
    """The trial's state, while it has a job with the job's reason: `queued (Priority)`."""
    state, job = str(trial["state"]), trial["job_state"]
    if state not in ("queued", "running") or job is None:
        return state
    reason = job["reason"]
    return f"{job['state']} ({reason})" if reason not in ("", "None") else str(job["state"])


def _trial(directory: Path, view: TrialView, reference: Reference | None) -> dict[str, Any]:
    folder = files.trial_dir(directory, view.number)
    job = None
    with suppress(FileNotFoundError, EvaluationError):  # a damaged one is mended by the next start
        job = files.read_object(folder / files.JOB_JSON)
    categories = {name: encode(counts) for name, counts in view.categories.items()}
    return {
        "trial": view.number,
        "name": view.trial.name,
        "params": view.trial.params,
        "outcome": view.outcome,
        "episodes": view.counts.episodes,
        "successes": view.counts.successes,
        "failures": view.counts.failures,
        "errors": view.counts.errors,
        "state": view.status.state if view.status else "queued",
        "cause": view.status.cause if view.status else None,
        **({"categories": categories} if categories else {}),
        **{measure.name: measure.read(view, reference) for measure in (CALL_MS, SPEEDUP)},
        "throughput": _throughput(view),
        "reason": view.result.reason if view.result else None,
        "job": job,
        "job_failures": deaths_of(folder),
    }


def _throughput(view: TrialView) -> dict[str, Any] | None:
    """Of the latest assignment; None where no episode has ended."""
    if view.throughput is None:
        return None
    rates = ("episodes_per_min", "simulators_busy", "policy_busy")
    return {
        **{name: getattr(view.throughput, name) for name in rates},
        "counted": view.throughput.to_json(),
    }


def _categories_table(trials: list[dict[str, Any]]) -> Table | None:
    """Successes by category; None where the suite has no categories or nothing was played."""
    played = [trial for trial in trials if trial["episodes"]]
    if not played or "categories" not in played[0]:
        return None
    names = list(played[0]["categories"])
    table = new_table("succeeded, by category", ["trial", *names], [])
    for trial in played:
        cells = (_succeeded(trial["categories"][name]) for name in names)
        table.add_row(str(trial["trial"]), *cells)
    return table


def _succeeded(counts: dict[str, int]) -> str:
    """`5 of 6`; nothing where no episode ran."""
    ran = counts["episodes"] - counts["errors"]
    return f"{counts['successes']} of {ran}" if ran else ""


def _print(state: dict[str, Any]) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in state["counts"].items())
    asked = "; asked to stop" if state["stop_requested"] else ""
    table = Table(title=f"{state['sweep']}: {counts}; {state['episodes']} episodes{asked}")
    played = ("episodes", "succeeded") if state["episodes"] else ()
    for heading in ("trial", "state", *played, "ms per call", "job failures"):
        table.add_column(heading, justify="left" if heading == "state" else "right")
    for trial in state["trials"]:
        ms = trial["call_ms"]
        mark = "*" if trial["trial"] in state["front"] else ""
        table.add_row(
            f"{mark}{trial['trial']}",
            _state(trial),
            *(str(trial[name]) for name in ("episodes", "successes") if played),
            "" if ms is None else f"{ms:.3g}",
            ", ".join(failure["kind"] for failure in trial["job_failures"]),
        )
    console = open_console()
    console.print(table)
    categories = _categories_table(state["trials"])
    if categories is not None:
        console.print(categories)
    running = [trial for trial in state["trials"] if trial["state"] == "running"]
    found = [trial["throughput"] for trial in running if trial["throughput"]]
    pace = wording.pace([Throughput.from_json(throughput["counted"]) for throughput in found])
    if pace:
        console.print(pace)
    for folder, why in state["damaged"].items():
        console.print(f"trial {folder} cannot be read: {why}", markup=False, highlight=False)
    controller = state["controller"]
    if controller is not None:
        reason = controller["reason"]
        why = f" ({reason})" if reason not in ("", "None") else ""
        said = f"controller: SLURM job {controller['job_id']}, {controller['state']}{why}"
        print(f"{said}; log {controller['log']}")
    console.print("* on the front", style="dim")
