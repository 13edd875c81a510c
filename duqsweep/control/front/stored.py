"""The last front of a sweep, as far as it still holds: what a command need not compute anew.

`front.sources.json` says what `front.json` was computed from. Files are compared by their size and
the time of their last change, never by an order of times, so that clocks do not matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from duqsweep import files
from duqsweep.codec import encode
from duqsweep.control.front.factors import TWINS_DIR
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.front.reserved import CONFIRM_DIR, CONFIRM_JSON
from duqsweep.control.trials.reader import REFERENCE, TrialReader, TrialView
from duqsweep.errors import EvaluationError, SpecError
from duqsweep.fingerprint import digest


@dataclass(frozen=True)
class Sources:
    """The content of `front.sources.json`: digests of what a front was computed from."""

    front: str  # of front.json itself
    basis: str  # of objectives, margin and the files that `_basis` names
    trials: dict[str, str]  # folder of each finished trial → `TrialView.mark`


@dataclass(frozen=True)
class Look:
    """A sweep's front and trials as its files show them now."""

    front: Front
    views: Mapping[int, TrialView]  # the trials that were read
    points: Mapping[int, FrontPoint]  # all others: finished, and the same as in front.json
    damaged: Mapping[str, str]  # folder → what is wrong with it


class SourcesFile:
    """Writes `front.sources.json` of one sweep."""

    def __init__(self, sweep_dir: Path, objectives: Sequence[Objective], margin: float) -> None:
        """Nothing is written yet; the arguments are those of the front."""
        self._dir, self._objectives, self._margin = sweep_dir, objectives, margin
        self._written: Sources | None = None

    def write(self, front_text: str, views: Sequence[TrialView]) -> None:
        """Note that front.json holds this text, computed from these trials."""
        marks = {f"{view.number:04d}": view.mark for view in views if _is_settled(view)}
        basis = _basis(self._dir, self._objectives, self._margin)
        sources = Sources(digest(front_text), basis, marks)
        if sources != self._written:
            files.write_json(self._dir / files.FRONT_SOURCES_JSON, encode(sources))
        self._written = sources


def stored_look(
    sweep_dir: Path, objectives: Sequence[Objective], margin: float, reader: TrialReader
) -> Look | None:
    """The sweep from front.json and the trials that it does not hold; None where it is outdated.

    Args:
        sweep_dir: The sweep's folder.
        objectives: What the sweep trades.
        margin: Loss of success rate that the verdict tolerates.
        reader: Of the sweep's trials.
    """
    path = sweep_dir / files.FRONT_JSON
    if not (sweep_dir / files.REFERENCE_JSON).exists():
        return None
    try:
        sources = files.read_record(Sources, sweep_dir / files.FRONT_SOURCES_JSON)
        text = path.read_text(encoding="utf-8")
        if sources.front != digest(text) or sources.basis != _basis(sweep_dir, objectives, margin):
            return None
        front = Front.from_json(json.loads(text))
    except (FileNotFoundError, ValueError, EvaluationError, SpecError):
        return None
    views = reader.read(sources.trials)
    points = {point.trial: point for point in front.points}
    unchanged = {int(folder) for folder in reader.left_out}
    if points.keys() != unchanged or any(_may_matter(view, front) for view in views):
        return None
    counts = Counter(
        [*(point.outcome for point in front.points), *(view.outcome for view in views)]
    )
    played = [point.success.counts.episodes for point in front.points]
    front = replace(
        front,
        counts={name: counts[name] for name in front.counts},
        episodes=sum(played) + sum(len(view.episodes) for view in views),
    )
    return Look(front, {view.number: view for view in views}, points, dict(reader.damaged))


def _is_settled(view: TrialView) -> bool:
    """Whether a trial is finished, and its point counts every episode that it has played."""
    return view.result is not None and view.result.counts == view.counts


def _may_matter(view: TrialView, front: Front) -> bool:
    """Whether a trial that the front does not hold may change more than its counts."""
    if view.result is not None or view.trial.name == REFERENCE:
        return True
    if view.vitals is None or view.vitals.simulator is None:
        return False
    return front.simulator is None or view.vitals.renderer not in front.simulator.renderers


def _basis(sweep_dir: Path, objectives: Sequence[Objective], margin: float) -> str:
    paths = [
        sweep_dir / files.REFERENCE_JSON,
        sweep_dir / files.POSTERIOR_JSON,
        sweep_dir / files.IMPORTANCES_JSON,
        sweep_dir / CONFIRM_DIR / CONFIRM_JSON,
    ]
    paths += sorted((sweep_dir / TWINS_DIR / files.TRIALS_DIR).glob(f"*/{files.VITALS_JSON}"))
    contents = [path.read_bytes().hex() if path.exists() else None for path in paths]
    return digest([[encode(objective) for objective in objectives], margin, contents])
