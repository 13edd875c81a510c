"""The videos that lie beside a report: which trials and which episode each shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view.wording import label

# As `duqsweep video` names them.
_NAME = re.compile(r"trial_(\d+)(?:_beside_(\d+))?_episode_(\d+)")


@dataclass(frozen=True)
class Film:
    """One video."""

    path: str  # relative to the page
    trials: tuple[int, ...]  # from the left; empty where the name does not say
    caption: str


def films(paths: Sequence[str], views: Sequence[TrialView], tasks: Sequence[str]) -> list[Film]:
    """The videos with their captions.

    Args:
        paths: Relative to the page.
        views: The sweep's trials, for how the episodes ended.
        tasks: The instruction of each task, as far as known.
    """
    by_number = {view.number: view for view in views}
    return [_film(path, by_number, tasks) for path in paths]


def _film(path: str, views: dict[int, TrialView], tasks: Sequence[str]) -> Film:
    stem = PurePosixPath(path).stem
    found = _NAME.fullmatch(stem)
    if found is None:
        return Film(path, (), stem.replace("_", " "))
    numbers = tuple(int(number) for number in found.groups()[:2] if number is not None)
    shown = [views[number] for number in numbers if number in views]
    names = " beside ".join(label(view.number, view.trial.name) for view in shown)
    caption = f"trial {names or ' beside '.join(map(str, numbers))}, episode {int(found[3])}"
    return Film(path, numbers, ", ".join([caption, *_ended(shown, int(found[3]), tasks)]))


def _ended(shown: Sequence[TrialView], episode: int, tasks: Sequence[str]) -> Iterator[str]:
    """How the episode ended for each trial, and its instruction."""
    records = [record for view in shown for record in view.episodes if record.i == episode]
    if records:
        yield " beside ".join("success" if record.success else "failure" for record in records)
    if records and records[0].task < len(tasks):
        yield tasks[records[0].task]
