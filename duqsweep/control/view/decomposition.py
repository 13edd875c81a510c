"""What made the points of a front fast: a row of factors per point, the same on every screen."""

from __future__ import annotations

from duqsweep.control.front.formats import NONE, ratio
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.trials.reader import REFERENCE
from duqsweep.control.view.tables import EPISODE_COLUMN
from duqsweep.control.view.wording import counted, point_label

HEADER = (
    "trial",
    EPISODE_COLUMN,
    "= steps",
    "× compile",
    "× quantization",
    "× replan",
    "unquantized twin",
)
NOTE = (
    "Over the unquantized, eager policy. The steps are timed eager and unquantized, compilation "
    "unquantized, quantization against the twin: the same trial without it. Below 1 a factor costs "
    "time. Timings carry some per cent of noise."
)
UNTIMED = "not timed"


def decomposition(front: Front) -> list[tuple[str, ...]]:
    """A row (see `HEADER`) per point on the front; the reference has none.

    Empty where no point's factors are known.
    """
    if all(point.factors is None for point in front.members):
        return []
    return [_row(point) for point in front.members if point.name != REFERENCE]


def untimed_line(front: Front, folder: str) -> str | None:
    """How to find out what quantization brings, where that is not known of all points."""
    missing = sum(point.factors is None and point.name != REFERENCE for point in front.members)
    if not missing:
        return None
    return (
        f"What quantization itself brings to {counted(missing, 'trial')} of the front is not known "
        f"yet; python -m duqsweep twins {folder} times the same trials without it, in seconds each "
        "and without an episode."
    )


def _row(point: FrontPoint) -> tuple[str, ...]:
    found = point.factors
    if found is None:
        return (point_label(point), *(NONE,) * 5, UNTIMED)
    numbers = (found.episode, found.steps, found.compile, found.quantization, found.replan)
    return (point_label(point), *map(ratio, numbers), found.twin)
