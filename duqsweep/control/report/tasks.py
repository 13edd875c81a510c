"""Success of the front's trials in parts: by category and by task, as tables of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from duqsweep.control.report.webpage import Cell, sortable_table
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view import wording
from duqsweep.result import EpisodeRecord

ORIGINAL = "original"  # the category that the others are compared with


def categories_table(content: Mapping[str, Any]) -> str:
    """A row per trial, a column per category; empty where the suite has no categories.

    With the category `original` each other one also says by how many percentage points it differs.
    """
    names = wording.categories(content["points"])
    rows: list[tuple[str, Sequence[Cell]]] = []
    for point in wording.front_points(content) if names else []:
        cells: list[Cell] = [(wording.label(point), point["trial"])]
        cells += [_category(point["categories"], name) for name in names]
        rows.append(("", cells))
    return sortable_table(["trial", *names], rows)


def _category(categories: Mapping[str, Any], name: str) -> Cell:
    counts = categories[name]
    rate = counts["success_rate"]
    if rate is None:
        return wording.NONE, None
    ran = counts["episodes"] - counts["errors"]
    parts = [f"{wording.percent(rate)} ({wording.interval(counts)})"]
    parts.append(f"{counts['successes']} of {ran}")
    original = categories.get(ORIGINAL, {}).get("success_rate")
    if name != ORIGINAL and original is not None:
        parts.append(f"{100 * (rate - original):+.1f} points")
    return ", ".join(parts), rate


def tasks_table(content: Mapping[str, Any], views: Sequence[TrialView]) -> str:
    """A row per trial, or per trial and category; a column per task."""
    if not wording.plays(content):
        return ""
    by_number = {view.number: view for view in views}
    protocol = views[0].trial.spec.protocol
    played = {episode.task for view in views for episode in view.episodes}
    tasks = sorted({task % protocol.tasks for task in played})
    rows: list[tuple[str, Sequence[Cell]]] = []
    for point in wording.front_points(content):
        episodes = by_number[point["trial"]].episodes
        for i, category in enumerate(protocol.categories or [""]):
            name: list[Cell] = [(category, category)] if category else []
            found = [_task(episodes, i * protocol.tasks + task) for task in tasks]
            rows.append(("", [(wording.label(point), point["trial"]), *name, *found]))
    second = ["category"] if protocol.categories else []
    return sortable_table(["trial", *second, *(f"task {task}" for task in tasks)], rows)


def _task(episodes: Sequence[EpisodeRecord], task: int) -> Cell:
    ran = [e.success for e in episodes if e.task == task and e.error is None]
    return (f"{sum(ran)} of {len(ran)}", sum(ran) / len(ran)) if ran else (wording.NONE, None)
