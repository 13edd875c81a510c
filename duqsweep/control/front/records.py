"""A front as a record: the content of `front.json`, written and read back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.categories import SUCCESS_RATE, is_success_rate, named_category
from duqsweep.codec import FLAT, decode, encode
from duqsweep.control.front.beliefs import Answer
from duqsweep.control.front.factors import SpeedupFactors
from duqsweep.control.front.importance import Importance
from duqsweep.control.front.measures import (
    CALL_MS,
    EPISODE_TIME_S,
    MEASURES,
    Measure,
    find_measure,
)
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.reserved import PointState, Reserved
from duqsweep.control.front.simulator import SweepSimulator
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.front.verdict import Verdict
from duqsweep.errors import SpecError
from duqsweep.result import Outcome


@dataclass(frozen=True)
class FrontReference:
    """The unquantized, eager policy that all times of a sweep are scaled to."""

    call_ms: float  # median latency of a policy call
    nominal_calls: int  # of an episode
    episode_time_s: float
    timed_by_trial: int
    hardware: dict[str, Any]
    trial: int | None  # the sweep's own trial of the unquantized policy
    success_rate: float | None  # of that trial

    def value(self, measure: Measure) -> float | None:
        """What the unquantized policy has; None for all but measured times."""
        read = measure.at_reference
        return None if read is None else read(self.call_ms, self.nominal_calls)


@dataclass(frozen=True)
class FrontPoint:
    """One finished trial: its settings, its measures and its place."""

    trial: int
    name: str | None  # of the plan that it is
    params: dict[str, bool | int | float | str]
    success: SuccessEstimate = field(metadata=FLAT)  # Wilson's interval at 95 %
    measures: dict[str, float | None] = field(metadata=FLAT)  # all but `success_rate`, by name
    kernel: str | None  # that ran; None for a trial that was not benchmarked
    compile: bool
    num_steps: int  # denoising steps
    layers_quantized: int | None
    on_front: bool
    p_front: float | None  # probability of being on the front; None where that is not estimated
    outcome: Outcome
    reason: str
    error_type: str | None
    success_mean: float | None = None  # a model's posterior mean; None where there is no model
    # The 95 % interval for other tasks of the same kind; None where fewer than two were played.
    success_low_by_task: float | None = None
    success_high_by_task: float | None = None
    state: PointState = "unconfirmed"
    factors: SpeedupFactors | None = None  # on the front, where the twin is timed
    reserved: Reserved | None = None  # on states that no search uses; None before `confirm`
    categories: dict[str, SuccessEstimate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.measures:
            if name not in MEASURES and named_category(name) is None:
                raise SpecError(f"trial {self.trial} of a front has the unknown key {name!r}")

    def value(self, measure: Measure) -> float | None:
        """The trial's value; None where it has none."""
        if measure.name == SUCCESS_RATE:
            return self.success.success_rate
        return self.measures.get(measure.name)

    def text(self, measure: Measure) -> str:
        """The trial's value as tables show it."""
        return measure.text(self.value(measure))

    def estimate(self, success: Measure) -> SuccessEstimate:
        """The estimate behind a success rate, of all episodes or of a category's."""
        category = named_category(success.name)
        return self.success if category is None else self.categories[category]


@dataclass(frozen=True)
class Front:
    """All finished trials of a sweep, and which of them no other beats."""

    sweep: str
    objectives: tuple[Objective, ...]  # most important first
    reference: FrontReference | None  # None before the first benchmark
    simulator: SweepSimulator | None  # None for a suite without episodes
    hypervolume: float  # that the front dominates
    counts: dict[str, int]  # outcome → trials, running ones included
    episodes: int  # of all trials, running ones included
    verdict: Verdict | None = None  # None without a trial of the unquantized policy
    answer: Answer | None = None  # None without `budget.until`
    importances: tuple[Importance, ...] = ()  # largest first; empty where they were not computed
    points: tuple[FrontPoint, ...] = ()  # by trial

    @property
    def plays(self) -> bool:
        """Whether any trial played an episode; a sweep of latency alone plays none."""
        return self.episodes > 0

    @property
    def success(self) -> Measure:
        """The success rate that the sweep trades first; where it trades none, the overall one."""
        names = (objective.name for objective in self.objectives)
        return find_measure(next(filter(is_success_rate, names), SUCCESS_RATE))

    @cached_property
    def varying_params(self) -> frozenset[str]:
        """Keys of the parameters that differ between the points, or of all for a single point."""
        keys = {key for point in self.points for key in point.params}
        if len(self.points) == 1:
            return frozenset(keys)
        unset = object()
        return frozenset(
            key for key in keys if len({point.params.get(key, unset) for point in self.points}) > 1
        )

    @cached_property
    def members(self) -> tuple[FrontPoint, ...]:
        """The points on the front, best success first, then fastest."""
        time = EPISODE_TIME_S if self.plays else CALL_MS
        success = self.success
        on_front = [point for point in self.points if point.on_front]
        return tuple(
            sorted(on_front, key=lambda p: (-(p.value(success) or 0.0), p.value(time) or 0.0))
        )

    def episode_speedup(self, point: FrontPoint) -> float | None:
        """How many times shorter a nominal episode is than the reference's; fewer calls count."""
        time_s = point.value(EPISODE_TIME_S)
        return self.reference.episode_time_s / time_s if self.reference and time_s else None

    def to_json(self) -> dict[str, Any]:
        """The content of `front.json`; `categories` is left out where the suite has none."""
        data = encode(self)
        data["points"] = [_point_json(point) for point in data["points"]]
        return data

    @classmethod
    def from_json(cls, data: Any) -> Front:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, data)


class FrontText:
    """Writes `front.json` as text again and again; points that did not change are not encoded."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._texts: dict[int, tuple[FrontPoint, str]] = {}

    def of(self, front: Front) -> str:
        """What `files.write_json` would write of `front.to_json()`."""
        rest = files.json_text(replace(front, points=()).to_json())
        if not front.points:
            return rest
        self._texts = {point.trial: self._of_point(point) for point in front.points}
        points = ",\n".join(text for _, text in self._texts.values())
        return f'{rest.removesuffix(_NO_POINTS)}"points": [\n{points}\n  ]\n}}\n'

    def _of_point(self, point: FrontPoint) -> tuple[FrontPoint, str]:
        known = self._texts.get(point.trial)
        if known is not None and known[0] is point:
            return known
        text = files.json_text(_point_json(encode(point))).rstrip("\n")
        return point, "\n".join(f"    {line}" for line in text.split("\n"))


_NO_POINTS = '"points": []\n}\n'


def _point_json(data: dict[str, Any]) -> dict[str, Any]:
    if not data["categories"]:
        del data["categories"]
    return data


def read_front(sweep_dir: Path) -> Front | None:
    """The front that a sweep's folder holds; None where no `front.json` was written yet.

    Raises:
        ConfigError: The file is torn, or not of this version of duqsweep.
    """
    return files.read_derived(
        sweep_dir / files.FRONT_JSON,
        Front.from_json,
        "no front of this version",
        "`sync` writes it again from the trials' files",
    )
