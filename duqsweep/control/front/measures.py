"""The numbers of a trial that a sweep shows and can trade, each declared once.

Objectives, front.json, front.csv, the terminal, the report and MLflow all read `MEASURES`: a new
number is one more entry there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from duqsweep.categories import SUCCESS_RATE as SUCCESS_RATE_NAME
from duqsweep.categories import named_category, of_category
from duqsweep.control.front import formats
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.trials.reference import Reference
from duqsweep.errors import ConfigError
from duqsweep.result import H200_SECONDS, Vitals
from duqsweep.spec import SuiteSpec

Direction = Literal["maximize", "minimize"]
Read = Callable[[TrialView, Reference | None], float | None]


@dataclass(frozen=True)
class Measure:
    """One number of a trial: where it comes from, which way is better, how it is shown."""

    name: str  # its key in front.json; of one category: "success_rate.object"
    unit: str  # of the value; empty for a pure number
    direction: Direction  # which way is better
    label: str  # words beside an axis, without the unit
    column: str  # heading of a column
    read: Read  # the value from a trial and the sweep's reference; None: the trial has none
    text: Callable[[float | None], str] = formats.number  # the value in a table
    explanation: str = ""  # what one must know to read it
    needs_episodes: bool = False  # None before the first episode
    # What the unquantized policy has, from its `call_ms` and the nominal calls of an episode; only
    # times that are measured have one.
    at_reference: Callable[[float, int], float] | None = None
    noise: float = 0.0  # relative standard deviation between two benchmarks of the same settings

    @property
    def is_time(self) -> bool:
        """Whether it is a measured time."""
        return self.at_reference is not None


def _episode_time_s(view: TrialView, reference: Reference | None) -> float | None:
    if view.vitals is None or reference is None:
        return None
    calls = view.trial.spec.suite.nominal_calls
    return reference.episode_time_s(calls, view.vitals.speedup)


def _call_ms(view: TrialView, reference: Reference | None) -> float | None:
    if view.vitals is None or reference is None:
        return None
    hardware = view.vitals.hardware
    # A GPU's calls are bound by the GPU, the eager reference's by the processor that launches them.
    if hardware.get("device") == "cuda" and hardware == reference.hardware:
        return view.vitals.call_ms.p50
    return reference.call_ms / view.vitals.speedup


def _modelled_time_s(view: TrialView, reference: Reference | None) -> float | None:
    seconds = view.vitals.modelled.get(H200_SECONDS) if view.vitals else None
    return None if seconds is None else seconds * view.trial.spec.suite.nominal_calls


def _of_vitals(read: Callable[[Vitals], float]) -> Read:
    return lambda view, _reference: None if view.vitals is None else read(view.vitals)


SUCCESS_RATE = Measure(
    SUCCESS_RATE_NAME,
    unit="",
    direction="maximize",
    label="success rate",
    column="success",
    read=lambda view, _reference: view.result.success_rate if view.result else None,
    text=formats.percent,
    explanation="successes over successes and failures; an episode that ended in an error counts "
    "as neither. 95 % is Wilson's interval.",
    needs_episodes=True,
)
EPISODE_TIME_S = Measure(
    "episode_time_s",
    unit="s",
    direction="minimize",
    label="policy time of an episode",
    column="time",
    read=_episode_time_s,
    text=formats.seconds,
    explanation="policy calls of an episode of nominal length × median latency of a call. Each "
    "trial also times the unquantized policy on its own node, and only the ratio of the two is "
    "used, so that trials of different nodes can be compared.",
    at_reference=lambda call_ms, nominal_calls: call_ms / 1000 * nominal_calls,
    noise=0.02,
)
CALL_MS = Measure(
    "call_ms",
    unit="ms",
    direction="minimize",
    label="time of a policy call",
    column="call",
    read=_call_ms,
    text=formats.milliseconds,
    explanation="median latency of a policy call at batch 1, device synchronised, without warm-up "
    "and compilation: as measured on the GPU that timed the reference; on other machines the "
    "reference's latency over the speed-up.",
    at_reference=lambda call_ms, _nominal_calls: call_ms,
)
SPEEDUP = Measure(
    "speedup",
    unit="×",
    direction="maximize",
    label="speed-up of a call over the unquantized, eager policy",
    column="call ×",
    read=_of_vitals(lambda vitals: vitals.speedup),
    text=formats.ratio,
    explanation="latency of the unquantized, eager policy over the trial's, on the same node.",
)
MODELLED_TIME_S = Measure(
    "modelled_time_s",
    unit="s",
    direction="minimize",
    label="modelled, not measured: time of an episode on an H200 at these bits",
    column="modelled [s]",
    read=_modelled_time_s,
    explanation="not measured; an episode's seconds if each layer kept to the limits of an H200 at "
    "these bits. So bits can be traded where the kernel that ran only simulates them.",
)
WEIGHTS_MB = Measure(
    "weights_mb",
    unit="MB",
    direction="minimize",
    label="weights",
    column="weights [MB]",
    read=_of_vitals(lambda vitals: vitals.weights_mb),
    explanation="memory of all weights, 10^6 bytes: measured where a kernel reads packed weights, "
    "otherwise computed from their bits.",
)
MEAN_WEIGHT_BITS = Measure(
    "mean_weight_bits",
    unit="",
    direction="minimize",
    label="mean bits of a weight",
    column="mean bits",
    read=_of_vitals(lambda vitals: vitals.mean_weight_bits),
    explanation="mean over the weights of the quantized layers; 16 where none is quantized.",
)
ACTION_ERROR = Measure(
    "action_error",
    unit="normalised RMSE",
    direction="minimize",
    label="action error to the unquantized policy",
    column="action error",
    read=_of_vitals(lambda vitals: vitals.action_error),
    explanation="root mean square difference to the unquantized policy's normalised actions under "
    "the same noise, on fixed observations.",
)
STEPS_TO_SUCCESS = Measure(
    "steps_to_success",
    unit="",
    direction="minimize",
    label="control steps to success",
    column="steps",
    read=lambda view, _reference: view.steps_to_success if view.result else None,
    explanation="mean control steps of the successful episodes.",
    needs_episodes=True,
)

# By name, in the order in which they are shown.
MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        SUCCESS_RATE,
        EPISODE_TIME_S,
        CALL_MS,
        SPEEDUP,
        MODELLED_TIME_S,
        WEIGHTS_MB,
        MEAN_WEIGHT_BITS,
        ACTION_ERROR,
        STEPS_TO_SUCCESS,
    )
}


def find_measure(name: str) -> Measure:
    """The measure of this name, also `success_rate.CATEGORY`; raises ConfigError where none is."""
    category = named_category(name)
    if category is not None:
        return _of_category(category)
    if name not in MEASURES:
        raise ConfigError(f"there is no measure {name!r}; measures are: {', '.join(MEASURES)}")
    return MEASURES[name]


def measures_of(suite: SuiteSpec) -> dict[str, Measure]:
    """All measures of a suite by name: `MEASURES`, then the success rate of each category."""
    by_category = (_of_category(category) for category in suite.categories)
    return MEASURES | {measure.name: measure for measure in by_category}


def _of_category(category: str) -> Measure:
    def read(view: TrialView, _reference: Reference | None) -> float | None:
        if category not in view.categories:
            known = ", ".join(view.categories) or "none"
            raise ConfigError(f"there is no category {category!r}; categories are: {known}")
        return view.categories[category].success_rate if view.result else None

    return replace(
        SUCCESS_RATE,
        name=of_category(SUCCESS_RATE.name, category),
        label=f"{SUCCESS_RATE.label}, category {category}",
        column=category,
        read=read,
    )
