"""What `confirm` found on reserved states, and the state of a point that follows from it.

This is the one place that says whether a point is confirmed. The search's own episodes do not
count, because the point was chosen by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from duqsweep import files
from duqsweep.codec import FLAT, decode, encode
from duqsweep.control.front.pairs import Pairs, loss_above, loss_below, score
from duqsweep.control.front.success import SuccessEstimate

CONFIRM_DIR = "confirm"  # in the sweep's folder, laid out as a sweep's folder
CONFIRM_JSON = "confirm.json"

# confirmed: shown to lose at most the verdict's margin against the reference; refuted: shown to
# lose more; unconfirmed: neither, or not tried.
PointState = Literal["unconfirmed", "confirmed", "refuted"]


@dataclass(frozen=True)
class ConfirmedPoint:
    """One trial on states that the search never saw."""

    trial: int
    name: str | None
    params: dict[str, bool | int | float | str]
    success: SuccessEstimate = field(metadata=FLAT)  # an exact interval, held jointly
    wins: int  # common episodes that only this trial solved
    losses: int  # common episodes that only the reference solved
    p_value: float | None  # two-sided, of the exact McNemar test; None without a reference
    common_episodes: int = 0  # with the reference; 0 in a file of an earlier version
    categories: dict[str, SuccessEstimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Confirmation:
    """What the confirmed trials are worth: the content of confirm.json."""

    simultaneous_confidence: float  # that all intervals hold
    reference_trial: int | None  # that the others are paired with
    points: tuple[ConfirmedPoint, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `categories` is left out where the suite has none."""
        data = encode(self)
        for point in data["points"]:
            if not point["categories"]:
                del point["categories"]
        return data


@dataclass(frozen=True)
class Reserved:
    """What a point is worth on reserved states, beside what the search says of it."""

    success: SuccessEstimate = field(metadata=FLAT)  # an exact interval, held jointly
    common_episodes: int  # with the reference
    wins: int
    losses: int
    p_value: float | None  # of the exact McNemar test
    loss: float | None  # success rate of the reference minus the trial's, on common episodes
    loss_low: float | None  # bounds of the loss; each holds for all tested points jointly
    loss_high: float | None


def read_confirmation(sweep_dir: Path) -> Confirmation | None:
    """What `confirm` has written into a sweep's folder; None where it has not run.

    Raises:
        ConfigError: The file is torn, or not of this version of duqsweep.
    """
    return files.read_derived(
        sweep_dir / CONFIRM_DIR / CONFIRM_JSON,
        lambda data: decode(Confirmation, data, CONFIRM_JSON),
        "no confirmation of this version",
        "`confirm` writes it again from the trials' files",
    )


def judged(found: Confirmation, margin: float) -> dict[int, tuple[PointState, Reserved]]:
    """The state of each trial that was tried on reserved states, with what it comes from.

    Args:
        found: What `confirm` found.
        margin: Loss of success rate that is tolerated.

    Returns:
        By trial. All states hold jointly at the confirmation's confidence (Tango's score test,
        Bonferroni over the trials beside the reference).
    """
    tested = sum(point.trial != found.reference_trial for point in found.points)
    z = NormalDist().inv_cdf(1 - (1 - found.simultaneous_confidence) / max(tested, 1))
    return {point.trial: _judged(point, margin, z) for point in found.points}


def _judged(point: ConfirmedPoint, margin: float, z: float) -> tuple[PointState, Reserved]:
    pairs = Pairs(point.common_episodes, point.wins, point.losses)
    state: PointState = "unconfirmed"
    if pairs.episodes:
        above = score(pairs, margin)
        state = "confirmed" if above <= -z else "refuted" if above >= z else "unconfirmed"
    return state, Reserved(
        success=point.success,
        common_episodes=pairs.episodes,
        wins=point.wins,
        losses=point.losses,
        p_value=point.p_value,
        loss=None if pairs.loss is None else round(pairs.loss, 4),
        loss_low=round(loss_above(pairs, z), 4) if pairs.episodes else None,
        loss_high=round(loss_below(pairs, z), 4) if pairs.episodes else None,
    )
