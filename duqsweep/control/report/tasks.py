"""Success of the front's trials in parts: by category and by task, as tables of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duqsweep.control.front.formats import NONE, percent
from duqsweep.control.front.records import Front
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.report.webpage import Cell, sortable_table
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view import wording
from duqsweep.result import EpisodeRecord, SuccessCounts

ORIGINAL = "original"  # the category that the others are compared with


def categories_table(front: Front) -> str:
    """A row per trial, a column per category; empty where the suite has no categories.

    With the category `original` each other one also says by how many percentage points it differs.
    """
    names = wording.categories(front.points)
    rows: list[tuple[str, Sequence[Cell]]] = []
    for point in front.members if names else []:
        cells: list[Cell] = [(wording.point_label(point), point.trial)]
        cells += [_category(point.categories, name) for name in names]
        rows.append(("", cells))
    return sortable_table(["trial", *names], rows)


def _category(categories: Mapping[str, SuccessEstimate], name: str) -> Cell:
    estimate = categories[name]
    rate, counts = estimate.success_rate, estimate.counts
    if rate is None:
        return NONE, None
    parts = [f"{percent(rate)} ({wording.interval(estimate)})"]
    parts.append(f"{counts.successes} of {counts.ran}")
    original = categories[ORIGINAL].success_rate if ORIGINAL in categories else None
    if name != ORIGINAL and original is not None:
        parts.append(f"{100 * (rate - original):+.1f} points")
    return ", ".join(parts), rate


def tasks_table(front: Front, views: Sequence[TrialView]) -> str:
    """A row per trial, or per trial and category; a column per task."""
    if not front.plays:
        return ""
    by_number = {view.number: view for view in views}
    suite = views[0].trial.spec.suite
    played = {episode.task for view in views for episode in view.episodes}
    tasks = sorted({task % suite.tasks for task in played})
    rows: list[tuple[str, Sequence[Cell]]] = []
    for point in front.members:
        episodes = by_number[point.trial].episodes
        for i, category in enumerate(suite.categories or [""]):
            name: list[Cell] = [(category, category)] if category else []
            found = [_task(episodes, i * suite.tasks + task) for task in tasks]
            rows.append(("", [(wording.point_label(point), point.trial), *name, *found]))
    second = ["category"] if suite.categories else []
    return sortable_table(["trial", *second, *(f"task {task}" for task in tasks)], rows)


def _task(episodes: Sequence[EpisodeRecord], task: int) -> Cell:
    counts = SuccessCounts.of(episode for episode in episodes if episode.task == task)
    rate = counts.success_rate
    return (NONE, None) if rate is None else (f"{counts.successes} of {counts.ran}", rate)
