"""Success of the front's trials in parts: by category and by task, as tables of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duqsweep.control.front.formats import NONE, percent
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.report.webpage import Cell, Column, Row, heat_table, sortable_table
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view import wording
from duqsweep.result import EpisodeRecord, SuccessCounts

ORIGINAL = "original"  # the category that the others are compared with


def categories_table(front: Front) -> str:
    """A row per trial, a column per category; empty where the suite has no categories.

    With the category `original` each other one also says by how many percentage points it differs.
    """
    names = wording.categories(front.points)
    rows = []
    for point in front.members if names else []:
        cells: list[Cell] = [(wording.point_label(point), point.trial)]
        cells += [_category(point.categories, name) for name in names]
        rows.append(Row(cells, trial=point.trial))
    return sortable_table([Column("trial"), *map(Column, names)], rows)


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


def tasks_table(front: Front, views: Sequence[TrialView], instructions: Sequence[str]) -> str:
    """A heat map: a row per trial, or per trial and category; a column per task.

    Args:
        front: Its members are shown, and before them the reference.
        views: The sweep's trials.
        instructions: Of each task, as far as known; tasks of all categories share a column.
    """
    if not front.plays:
        return ""
    by_number = {view.number: view for view in views}
    suite = views[0].trial.spec.suite
    played = {episode.task for view in views for episode in view.episodes}
    tasks = sorted({task % suite.tasks for task in played})
    rows: list[Row] = []
    for point in _shown(front):
        episodes = by_number[point.trial].episodes
        for i, category in enumerate(suite.categories or [""]):
            name: list[Cell] = [(category, category)] if category else []
            found = [_task(episodes, i * suite.tasks + task) for task in tasks]
            label = (wording.point_label(point), point.trial)
            rows.append(Row([label, *name, *found], trial=point.trial))
    second = [Column("category")] if suite.categories else []
    columns = [Column(_instruction(task, instructions)) for task in tasks]
    return heat_table([Column("trial"), *second, *columns], rows)


def _shown(front: Front) -> list[FrontPoint]:
    reference = [p for p in front.points if p.name == "reference" and not p.on_front]
    return [*reference, *front.members]


def _instruction(task: int, instructions: Sequence[str]) -> str:
    return f"{task}: {instructions[task]}" if task < len(instructions) else f"task {task}"


def _task(episodes: Sequence[EpisodeRecord], task: int) -> Cell:
    counts = SuccessCounts.of(episode for episode in episodes if episode.task == task)
    rate = counts.success_rate
    return (NONE, None) if rate is None else (f"{counts.successes} of {counts.ran}", rate)
