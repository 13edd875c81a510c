"""What is known of the success of the points on a front: every interval, and each point's state."""

from __future__ import annotations

from duqsweep.control.front.formats import NONE
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.front.reserved import Reserved
from duqsweep.control.view.wording import percent_range, point_label, success_cell

HEADER = ("trial", "search (Wilson)", "other tasks", "reserved states", "loss there", "state")
NOTE = (
    "other tasks: the 95 % interval for tasks of the same kind, clustered by task; reserved "
    "states: what `confirm` found, with an exact interval; confirmed and refuted: shown there to "
    "lose at most, or more than, the verdict's margin against the reference"
)


def evidence(front: Front) -> list[tuple[str, ...]]:
    """One row (see `HEADER`) per point that has played, on the front or tried by `confirm`.

    Those of the front come first, best success first; the others follow by trial.
    """
    others = [p for p in front.points if p.reserved is not None and not p.on_front]
    return [_row(point) for point in (*front.members, *others) if point.success.counts.ran]


def _row(point: FrontPoint) -> tuple[str, ...]:
    reserved = point.reserved
    return (
        point_label(point),
        success_cell(point.success, episodes=True),
        percent_range(point.success_low_by_task, point.success_high_by_task),
        NONE if reserved is None else success_cell(reserved.success, episodes=True),
        NONE if reserved is None else _loss(reserved),
        point.state,
    )


def _loss(reserved: Reserved) -> str:
    """In percentage points, e.g. `18 (10 to 29)`."""
    low, high = reserved.loss_low, reserved.loss_high
    if reserved.loss is None or low is None or high is None:
        return NONE
    return f"{100 * reserved.loss:.0f} ({100 * low:.0f} to {100 * high:.0f})"
