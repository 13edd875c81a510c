"""A sweep's result as people read it: tables on the terminal, files beside `front.json`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from duqsweep import files
from duqsweep.categories import of_category
from duqsweep.control.front.records import Front
from duqsweep.control.report import picture
from duqsweep.control.report.page import report_page
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view import simulation, tables, wording
from duqsweep.control.view.headline import answer_line, importance_line, verdict_line
from duqsweep.masking import masked

_LOG_WIDTH = 120
REPORT_FILES = (files.FRONT_JSON, files.FRONT_CSV, files.FRONT_PNG, files.REPORT_HTML)


def write_report(sweep_dir: Path, front: Front, views: Sequence[TrialView]) -> None:
    """Write `front.json`, `front.csv`, `front.png` and `report.html`, each atomically.

    Args:
        sweep_dir: The sweep's folder.
        front: Of the sweep.
        views: The sweep's trials, for the success rate of each task.
    """
    files.write_json(sweep_dir / files.FRONT_JSON, front.to_json())
    files.write_text(sweep_dir / files.FRONT_CSV, front_csv(front))
    files.write_bytes(sweep_dir / files.FRONT_PNG, picture.draw_png(front))
    sweep_yaml = sweep_dir / files.SWEEP_YAML
    text = masked(sweep_yaml.read_text(encoding="utf-8")) if sweep_yaml.exists() else ""
    films = sorted((sweep_dir / files.VIDEOS_DIR).glob("*.mp4"))
    videos = [f"{files.VIDEOS_DIR}/{film.name}" for film in films]
    page = report_page(front, views, text, picture.draw_svg(front), videos)
    files.write_text(sweep_dir / files.REPORT_HTML, page)


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
    flat = {key: value for key, value in point.items() if key not in ("categories", "reserved")}
    for category, values in point.get("categories", {}).items():
        flat |= {of_category(name, category): value for name, value in values.items()}
    return flat


def print_front(front: Front, console: Console | None = None) -> None:
    """Print the front, the seed's claims where they were tried, failures, and how to read it."""
    console = console or _console()
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


def _console() -> Console:
    """Standard output; where it is no terminal, wide enough for a log."""
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)
