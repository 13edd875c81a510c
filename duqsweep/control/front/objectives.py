"""The values that a sweep can trade: what each means for one trial, and what a trial is told as."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from duqsweep.categories import counts_by_category, is_success_rate, named_category
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.trials.reference import Reference
from duqsweep.errors import ConfigError
from duqsweep.result import H200_SECONDS, Vitals


class Objective(Protocol):
    """What a sweep trades."""

    @property
    def name(self) -> str:
        """A key of `MEASURES`, or `success_rate.CATEGORY`."""

    @property
    def direction(self) -> str:
        """Either maximize or minimize."""


def _success_rate(view: TrialView, reference: Reference) -> float | None:
    if view.outcome == "failed":
        return 0.0  # a crash is told as the worst that can happen, or the sampler asks for it again
    return view.result.success_rate if view.result else None


def _category_success_rate(view: TrialView, category: str) -> float | None:
    counts = counts_by_category(view.episodes, view.trial.spec.protocol).get(category)
    if counts is None:
        known = ", ".join(view.trial.spec.protocol.categories) or "none"
        raise ConfigError(f"there is no category {category!r}; categories are: {known}")
    if view.outcome == "failed":
        return 0.0
    return counts.success_rate if view.result else None


def _episode_time_s(view: TrialView, reference: Reference) -> float | None:
    if view.vitals is None:
        return None
    calls = view.trial.spec.protocol.nominal_calls
    return reference.episode_time_s(calls, view.vitals.speedup)


def _call_ms(view: TrialView, reference: Reference) -> float | None:
    if view.vitals is None:
        return None
    hardware = view.vitals.hardware
    # A GPU's calls are bound by the GPU, the eager reference's by the processor that launches them.
    if hardware.get("device") == "cuda" and hardware == reference.hardware:
        return view.vitals.call_ms.p50
    return reference.call_ms / view.vitals.speedup


def _modelled_time_s(view: TrialView, reference: Reference) -> float | None:
    seconds = view.vitals.modelled.get(H200_SECONDS) if view.vitals else None
    return None if seconds is None else seconds * view.trial.spec.protocol.nominal_calls


def _of_vitals(read: Callable[[Vitals], float]) -> Callable[[TrialView, Reference], float | None]:
    return lambda view, _reference: None if view.vitals is None else read(view.vitals)


# Every value that can be an objective; None where the trial does not have it.
MEASURES: Mapping[str, Callable[[TrialView, Reference], float | None]] = {
    "success_rate": _success_rate,
    "episode_time_s": _episode_time_s,
    # As measured on the GPU that timed the reference; elsewhere by the ratio, as seconds are.
    "call_ms": _call_ms,
    # By arithmetic alone: so bits can be traded where the kernel that ran only simulates them.
    "modelled_time_s": _modelled_time_s,
    "weights_mb": _of_vitals(lambda vitals: vitals.weights_mb),
    "action_error": _of_vitals(lambda vitals: vitals.action_error),
    "mean_weight_bits": _of_vitals(lambda vitals: vitals.mean_weight_bits),
}


def objective_values(
    view: TrialView,
    objectives: Sequence[Objective],
    reference: Reference | None,
    others: Sequence[TrialView] = (),
) -> tuple[float, ...] | None:
    """What an ended trial is told as, in the order of `objectives`.

    A value that the trial never showed (it crashed, or was ruled out before its first episode) is
    the worst that `others` showed, 0 for a rate.

    Returns:
        None when such a worst value does not exist either, or there is no reference yet.

    Raises:
        ConfigError: An objective is none of `MEASURES`, nor of a category of the suite.
    """
    if reference is None:
        return None
    values = []
    for objective in objectives:
        value = measure(view, objective.name, reference)
        if value is None:
            value = _worst(others, objective, reference)
        if value is None:
            return None
        values.append(value)
    return tuple(values)


def measure(view: TrialView, name: str, reference: Reference) -> float | None:
    """The value of one objective for one trial; raises ConfigError for an unknown name."""
    category = named_category(name)
    if category is not None:
        return _category_success_rate(view, category)
    if name not in MEASURES:
        raise ConfigError(f"objective {name!r} is unknown; objectives are {', '.join(MEASURES)}")
    return MEASURES[name](view, reference)


def _worst(views: Sequence[TrialView], objective: Objective, reference: Reference) -> float | None:
    if is_success_rate(objective.name):
        return 0.0
    shown = [measure(view, objective.name, reference) for view in views]
    known = [value for value in shown if value is not None]
    if not known:
        return None
    return max(known) if objective.direction == "minimize" else min(known)
