"""`duqsweep status DIR`: what a sweep has done, what runs now, and how its jobs failed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from duqsweep import files
from duqsweep.codec import encode
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.dispatch.jobfile import state_text
from duqsweep.control.front.measures import CALL_MS, SPEEDUP
from duqsweep.control.front.records import FrontPoint
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.trial_status import TrialStatus, read_status
from duqsweep.control.trials.phase import read_phase
from duqsweep.control.trials.reader import TrialView, deaths_of, read_throughput
from duqsweep.control.trials.reference import Reference, readable_reference
from duqsweep.control.view import wording
from duqsweep.control.view.console import open_console
from duqsweep.control.view.tables import columns, new_table
from duqsweep.errors import DispatchError, EvaluationError
from duqsweep.result import SuccessCounts, Throughput
from duqsweep.verbs.folder import sweep_config, sweep_look

if TYPE_CHECKING:
    from duqsweep.control.dispatch.launch import JobView


def main(arguments: list[str]) -> int:
    """Print a row per trial, or with --json everything as data; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep status", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    look = sweep_look(config)
    reference = readable_reference(config.directory, list(look.views.values()))
    jobs = _jobs(config)
    rows = {number: _of_point(point, config.directory) for number, point in look.points.items()}
    rows |= {number: _of_view(view, reference) for number, view in look.views.items()}
    controller = _controller(config)
    state = {
        "sweep": config.name,
        "controller": controller,
        "stop_requested": (config.directory / files.STOP).exists(),
        "counts": look.front.counts,
        "episodes": look.front.episodes,
        "front": [point.trial for point in look.front.points if point.on_front],
        "trials": [
            {
                "trial": number,
                **rows[number],
                "job_state": jobs.get(number),
                **_of_job(files.trial_dir(config.directory, number), details=parsed.json),
                "phase": _phase(config.directory, number) if _runs(rows[number]) else None,
            }
            for number in sorted(rows)
        ],
        "damaged": dict(look.damaged),
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
    """The trial's state; with what it does before its first episode, or why its job waits.

    E.g. `running (compiling)`, `queued (Priority)`.
    """
    state, job = str(trial["state"]), trial["job_state"]
    if trial["phase"] is not None:
        return f"{state} ({wording.phase(trial['phase'])})"
    if state not in ("queued", "running") or job is None:
        return state
    return state_text(job["state"], job["reason"])


def _runs(trial: Mapping[str, Any]) -> bool:
    return (trial["state"], trial["outcome"]) == ("running", "running")


def _phase(directory: Path, number: int) -> str | None:
    return read_phase(files.trial_dir(directory, number))


def _of_view(view: TrialView, reference: Reference | None) -> dict[str, Any]:
    """What the results of a trial say, its number left out."""
    return {
        "name": view.trial.name,
        "params": view.trial.params,
        "outcome": view.outcome,
        **_of_counts(view.counts, view.categories),
        **_of_status(view.status, view.throughput),
        **{measure.name: measure.read(view, reference) for measure in (CALL_MS, SPEEDUP)},
        "reason": view.result.reason if view.result else None,
    }


def _of_point(point: FrontPoint, directory: Path) -> dict[str, Any]:
    """The same of a finished trial whose point in front.json still holds."""
    folder = files.trial_dir(directory, point.trial)
    categories = {name: estimate.counts for name, estimate in point.categories.items()}
    return {
        "name": point.name,
        "params": point.params,
        "outcome": point.outcome,
        **_of_counts(point.success.counts, categories),
        **_of_status(read_status(folder), read_throughput(folder)),
        **{measure.name: point.value(measure) for measure in (CALL_MS, SPEEDUP)},
        "reason": point.reason,
    }


def _of_counts(counts: SuccessCounts, categories: Mapping[str, SuccessCounts]) -> dict[str, Any]:
    by_category = {name: encode(one) for name, one in categories.items()}
    return {
        "episodes": counts.episodes,
        "successes": counts.successes,
        "failures": counts.failures,
        "errors": counts.errors,
        **({"categories": by_category} if by_category else {}),
    }


def _of_status(status: TrialStatus | None, throughput: Throughput | None) -> dict[str, Any]:
    return {
        "state": status.state if status else "queued",
        "cause": status.cause if status else None,
        "throughput": _throughput(throughput),
    }


def _of_job(folder: Path, details: bool) -> dict[str, Any]:
    """How jobs of a trial died, and with `details` who works or worked on it."""
    failures = deaths_of(folder)
    if not details:
        return {"job_failures": failures}
    job = None
    with suppress(FileNotFoundError, EvaluationError):  # a damaged one is mended by the next start
        job = files.read_object(folder / files.JOB_JSON)
    return {"job": job, "job_failures": failures}


def _throughput(throughput: Throughput | None) -> dict[str, Any] | None:
    """Of the latest assignment; None where no episode has ended."""
    if throughput is None:
        return None
    rates = ("episodes_per_min", "simulators_busy", "policy_busy")
    return {
        **{name: getattr(throughput, name) for name in rates},
        "counted": throughput.to_json(),
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


def _row(trial: dict[str, Any], front: Collection[int], played: bool, died: bool) -> list[str]:
    """A trial's cells; of its settings, see `_settings`."""
    mark = "*" if trial["trial"] in front else ""
    cells = [f"{mark}{wording.label(trial['trial'], trial['name'])}", _state(trial)]
    if played:
        counts = SuccessCounts(trial["episodes"], trial["successes"], trial["errors"])
        estimate = SuccessEstimate.of(counts)
        cells += [str(trial["episodes"]), wording.success_cell(estimate) if counts.ran else ""]
    for measure in (CALL_MS, SPEEDUP):
        value = trial[measure.name]
        cells.append("" if value is None else measure.text(value))
    return [*cells, *([", ".join(f["kind"] for f in trial["job_failures"])] if died else [])]


def _settings(params: Sequence[dict[str, Any]]) -> list[str]:
    """Of each trial what differs between them, in one line; all of a single one."""
    unset = object()
    keys = {key for each in params for key in each}
    same = {key for key in keys if len({each.get(key, unset) for each in params}) == 1}
    hidden = same if len(params) > 1 else set()
    return [
        wording.settings(wording.short_params({k: v for k, v in each.items() if k not in hidden}))
        for each in params
    ]


def _print(state: dict[str, Any]) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in state["counts"].items())
    asked = "; asked to stop" if state["stop_requested"] else ""
    trials, console = state["trials"], open_console()
    played = ("episodes", "success (95 %)") if state["episodes"] else ()
    died = ("job failures",) if any(trial["job_failures"] for trial in trials) else ()
    headings = ("trial", "state", *played, CALL_MS.column, SPEEDUP.column, *died)
    rows = [_row(trial, state["front"], bool(played), bool(died)) for trial in trials]
    print(f"{state['sweep']}: {counts}; {state['episodes']} episodes{asked}\n")
    settings = _settings([trial["params"] for trial in trials])
    left = ("trial", "state")
    print(columns(headings, rows, left, settings, console.width))
    repeats = wording.repeats_line([trial["trial"] for trial in trials])
    if repeats:
        console.print(repeats, highlight=False)
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
        said = state_text(controller["state"], controller["reason"])
        print(f"controller: SLURM job {controller['job_id']}, {said}; log {controller['log']}")
    console.print("* on the front", style="dim")
