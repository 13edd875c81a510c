"""A sweep's result as people read it: tables on the terminal, files beside `front.json`."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from duqsweep import files
from duqsweep.categories import of_category
from duqsweep.control.config.settings import Base
from duqsweep.control.front.records import Front
from duqsweep.control.report import picture
from duqsweep.control.report.page import report_page
from duqsweep.control.report.surroundings import Surroundings
from duqsweep.control.trial_words import trial_words
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.twins import read_timings
from duqsweep.control.view import simulation, tables, wording
from duqsweep.control.view.console import open_console
from duqsweep.control.view.headline import answer_line, importance_line, verdict_line
from duqsweep.envs.assets import instructions
from duqsweep.errors import ConfigError
from duqsweep.masking import masked


def write_report(
    sweep_dir: Path, front: Front, views: Sequence[TrialView], base: Base | None = None
) -> None:
    """Write `REPORT_FILES`: front.json, front.csv, front.png and report.html, each atomically.

    Args:
        sweep_dir: The sweep's folder.
        front: Of the sweep.
        views: The sweep's trials, for the success rate of each task.
        base: What the sweep's trials start from, for the commands that evaluate one again.
    """
    files.write_json(sweep_dir / files.FRONT_JSON, front.to_json())
    files.write_text(sweep_dir / files.FRONT_CSV, front_csv(front))
    drawn = picture.draw(front)
    files.write_bytes(sweep_dir / files.FRONT_PNG, drawn.png)
    page = report_page(front, views, drawn.svg, _surroundings(sweep_dir, front, views, base))
    files.write_text(sweep_dir / files.REPORT_HTML, page)


def _surroundings(
    sweep_dir: Path, front: Front, views: Sequence[TrialView], base: Base | None
) -> Surroundings:
    sweep_yaml = sweep_dir / files.SWEEP_YAML
    films = sorted((sweep_dir / files.VIDEOS_DIR).glob("*.mp4"))
    return Surroundings(
        sweep_yaml=masked(sweep_yaml.read_text(encoding="utf-8")) if sweep_yaml.exists() else "",
        instructions=_instructions(views),
        videos=[f"{files.VIDEOS_DIR}/{film.name}" for film in films],
        folder=shlex.quote(_from_here(sweep_dir)),
        again={} if base is None else dict(_again(front, views, base)),
        timings=read_timings(sweep_dir, views),
    )


def _again(front: Front, views: Sequence[TrialView], base: Base) -> Iterator[tuple[int, str]]:
    """Each trial on the front, and the words that describe it again, quoted for a shell.

    A trial of a policy or suite that only the user's own configuration has is left out.
    """
    members = {point.trial for point in front.members}
    for view in views:
        if view.number in members:
            with suppress(ConfigError):
                yield view.number, shlex.join(trial_words(view.trial, base).overrides)


def _instructions(views: Sequence[TrialView]) -> list[str]:
    """The instruction of each task; empty where this machine lacks the suite's files."""
    try:
        return instructions(views[0].trial.spec.suite) if views else []
    except ConfigError:
        return []


def _from_here(sweep_dir: Path) -> str:
    """The folder's path from the working directory where that is above it."""
    whole, here = sweep_dir.absolute(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def front_csv(front: Front) -> str:
    """Every finished trial as a row: all keys of its point, then a column per parameter.

    What a point holds of a category becomes columns of its own, e.g. `success_low.object`. What
    `confirm` found stands in front.json alone, but for the state.
    """
    points = [_flat(point) for point in front.to_json()["points"]]
    keys = [key for key in points[0] if key != "params"] if points else []
    names = sorted({name for point in points for name in point["params"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, *names])
    for point in points:
        params = point["params"]
        writer.writerow([*(point[key] for key in keys), *(params.get(name) for name in names)])
    return text.getvalue()


def _flat(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point of front.json with a key for each value of each category."""
    nested = ("categories", "reserved", "factors")
    flat = {key: value for key, value in point.items() if key not in nested}
    for category, values in point.get("categories", {}).items():
        flat |= {of_category(name, category): value for name, value in values.items()}
    return flat


def print_front(front: Front, console: Console | None = None) -> None:
    """Print the front, the seed's claims where they were tried, failures, and how to read it."""
    console = console or open_console()
    console.print()
    if front.members:
        console.print(tables.front_table(front))
    else:
        console.print(f"{front.sweep}: no trial on the front yet")
    categories = tables.categories_table(front.members)
    shown = (tables.evidence_table(front), categories, tables.claims_table(front))
    for table in (*shown, tables.failures_table(front)):
        if table is not None:
            console.print()
            console.print(table)
    console.print()
    console.print(wording.counts_line(front))
    for said in (verdict_line(front), answer_line(front), importance_line(front)):
        if said is not None:
            console.print(said, highlight=False)
    for line in simulation.warnings(front.simulator):
        console.print(line, style="yellow", highlight=False)
    for line in tables.notes(front):
        console.print(line, style="dim", highlight=False)
