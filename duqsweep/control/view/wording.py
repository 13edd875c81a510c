"""How numbers of a sweep read: the same words in the terminal, the picture, the page and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from duqsweep.control.front.formats import (
    NONE,
    duration,
    milliseconds,
    number,
    percent,
    ratio,
)
from duqsweep.control.front.measures import (
    ACTION_ERROR,
    CALL_MS,
    EPISODE_TIME_S,
    SPEEDUP,
    SUCCESS_RATE,
    WEIGHTS_MB,
    Measure,
)
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.result import Throughput, TrialResult, Vitals

SLOW_KERNELS = {"none", "fake", "loop", None}  # none of them is faster with fewer bits
MOST_LISTED = 12  # numbers in a line
SIMULATED = "simulated quantization: fewer bits do not change the time measured here"
_KERNEL_NOTES = {
    "none": "not quantized",
    "fake": "fake (simulated)",
    "loop": "loop (the slow baseline)",
    "int8": "int8 (multiplies integers)",
    "w4a8": "w4a8 (multiplies integers, weights of 4 bits packed)",
    "fp8": "fp8 (multiplies 8-bit floats, e4m3)",
}


# What a worker does before a trial's first episode.
_PHASES = {
    "load": "loading",
    "observations": "observing",
    "reference actions": "comparing",
    "calibrate": "calibrating",
    "freeze": "quantizing",
    "compile": "compiling",
    "warm up": "warming up",
    "simulators": "simulators",
    "fidelity": "comparing",
}


class CategoryPoint(Protocol):
    """A trial with its success by category."""

    @property
    def categories(self) -> Mapping[str, SuccessEstimate]:
        """Empty where the suite has none."""


def counted(number: int, noun: str) -> str:
    """`1 plan`, `2 plans`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def stage_times(vitals: Vitals) -> list[tuple[str, str]]:
    """What of a call goes into rotating and rounding activations: stage, time as timed there.

    Empty where nothing is quantized.
    """
    if vitals.stages_ms is None:
        return [("rotations and rounding", "fused with other work, not separable")]
    return [(stage, milliseconds(ms)) for stage, ms in vitals.stages_ms.items()]


def interval(estimate: SuccessEstimate) -> str:
    """The interval of a success rate, e.g. `84–96 %`."""
    return percent_range(estimate.success_low, estimate.success_high)


def success_cell(estimate: SuccessEstimate, episodes: bool = False) -> str:
    """A success rate with its interval; where all or no episodes succeeded, what they exclude.

    Args:
        estimate: Of a trial, or of reserved states.
        episodes: Say of how many episodes in every case.

    Returns:
        E.g. `91.7 % (65–99 %)` or `91.7 % (65–99 %, 12)`, but `12/12, at least 76 %`.
    """
    counts, low, high = estimate.counts, estimate.success_low, estimate.success_high
    if estimate.success_rate is None or low is None or high is None:
        return NONE
    if counts.successes == counts.ran:
        return f"{counts.ran}/{counts.ran}, at least {100 * low:.0f} %"
    if not counts.successes:
        return f"0/{counts.ran}, at most {100 * high:.0f} %"
    of = f", {counts.ran}" if episodes else ""
    return f"{percent(estimate.success_rate)} ({interval(estimate)}{of})"


def percent_range(low: float | None, high: float | None) -> str:
    """Two rates as `84–96 %`."""
    return NONE if low is None or high is None else f"{100 * low:.0f}–{100 * high:.0f} %"


def categories(points: Sequence[CategoryPoint]) -> list[str]:
    """The categories of the suite that points are of, in its order; mostly none."""
    return next((list(point.categories) for point in points if point.categories), [])


def category_cell(point: CategoryPoint, category: str) -> str:
    """A category's success in percent with its interval, e.g. `92 (84–96)`."""
    estimate = point.categories.get(category)
    if estimate is None or estimate.success_rate is None:
        return NONE
    return f"{100 * estimate.success_rate:.0f} ({interval(estimate).removesuffix(' %')})"


def kernel_note(kernel: str | None) -> str:
    """A kernel's name with what it means for times."""
    return NONE if kernel is None else _KERNEL_NOTES.get(kernel, kernel)


def short_name(key: str) -> str:
    """A parameter's name as it fits an axis: `quant.weight_bits.default` → `w_bits`."""
    _, _, rest = key.partition(".")
    name = (rest or key).replace("weight_bits.default", "weight_bits")
    return name.replace("weight_bits", "w_bits").replace("act_bits", "a_bits")


def short_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under short names; one whose short name is not its own keeps its full key."""
    names = [short_name(key) for key in params]
    return {
        (name if names.count(name) == 1 else key): value
        for name, (key, value) in zip(names, params.items(), strict=True)
    }


def telling_params(params: Mapping[str, Any], front: Front) -> dict[str, Any]:
    """Those of a trial's parameters that differ between trials of the sweep, under short names."""
    telling = front.varying_params
    return short_params({key: value for key, value in params.items() if key in telling})


def telling_settings(params: Mapping[str, Any], front: Front) -> str:
    """The same in one line."""
    return settings(telling_params(params, front))


def settings(params: Mapping[str, Any]) -> str:
    """Parameters in one line, e.g. `block_size=32 num_steps=4`."""
    return " ".join(f"{name}={number(value)}" for name, value in params.items())


def label(trial: int, name: str | None) -> str:
    """`7` or `7 plan_a`."""
    return f"{trial} {name}" if name else str(trial)


def point_label(point: FrontPoint) -> str:
    """A point's trial, e.g. `7` or `7 plan_a`."""
    return label(point.trial, point.name)


def point_summary(point: FrontPoint) -> str:
    """A trial in one or two sentences."""
    params = settings(short_params(point.params))
    trial = f"trial {point_label(point)}"
    if point.outcome == "failed":
        return f"{trial}: failed, {point.reason}. {params}"
    faster = f"a call {point.text(SPEEDUP)} the reference"
    if not point.success.counts.episodes:
        return (
            f"{trial}: {point.text(CALL_MS)} per call, {faster}, {point.text(WEIGHTS_MB)} MB, "
            f"action error {point.text(ACTION_ERROR)}. {params}"
        )
    state = "" if point.state == "unconfirmed" else f"{point.state} on reserved states, "
    return (
        f"{trial}: success {success_cell(point.success)}, over {point.success.counts.ran} "
        f"episodes, {state}"
        f"{point.text(EPISODE_TIME_S)} per episode, {faster}. {params}"
    )


def in_short(point: FrontPoint) -> str:
    """Success and time of an episode; of a trial that played none, a call's time and its error."""
    counts = point.success.counts
    if counts.ran and counts.successes in (0, counts.ran):
        return f"{counts.successes}/{counts.ran}, {point.text(EPISODE_TIME_S)}"
    if counts.episodes:
        return f"{point.text(SUCCESS_RATE)}, {point.text(EPISODE_TIME_S)}"
    return f"{point.text(CALL_MS)}, error {point.text(ACTION_ERROR)}"


def successes(estimate: SuccessEstimate) -> str:
    """How many episodes succeeded, e.g. `11 of 12`."""
    counts = estimate.counts
    return f"{counts.successes} of {counts.ran}" if counts.ran else NONE


def cause(error_type: str | None, reason: str) -> str:
    """The type of an error and its text, which may begin with the type already."""
    if not error_type or reason.startswith(f"{error_type}:"):
        return reason
    return f"{error_type}: {reason}" if reason else error_type


def repeats_line(numbers: Sequence[int]) -> str | None:
    """Why trials of some numbers are missing; None where all up to the last are there.

    Args:
        numbers: Of all trials that the sweep has a folder of.
    """
    missing = sorted(set(range(max(numbers, default=-1) + 1)) - set(numbers))
    if not missing:
        return None
    listed = ", ".join(map(str, missing[:MOST_LISTED]))
    more = f" and {len(missing) - MOST_LISTED} more" if len(missing) > MOST_LISTED else ""
    return f"no trial {listed}{more}: each repeated another trial's settings, or was impossible"


def counts_line(front: Front) -> str:
    """`21 complete · 1 stopped · 1 failed · 1,320 episodes`."""
    parts = [f"{count} {name}" for name, count in front.counts.items() if count]
    played = f"{front.episodes:,} episodes" if front.plays else "no episodes"
    return " · ".join([*parts, played])


def shown_measures(front: Front) -> list[Measure]:
    """What a table of the front shows: success and time, or a call's time; then the objectives."""
    first = [SUCCESS_RATE, EPISODE_TIME_S] if front.plays else [CALL_MS]
    traded = [objective.measure for objective in front.objectives]
    names = {measure.name for measure in (*first, SPEEDUP)}
    return [*first, SPEEDUP, *(measure for measure in traded if measure.name not in names)]


def axis_label(measure: Measure, front: Front) -> str:
    """A measure's name with its unit, and what its times mean."""
    unit = f" [{measure.unit}]" if measure.unit else ""
    text = f"{measure.label}{unit}{', faster to the left' if measure.is_time else ''}"
    kernels = {point.kernel for point in front.points}
    if measure.is_time and "fake" in kernels:
        return f"{text}\n({SIMULATED if kernels <= SLOW_KERNELS else f'kernel fake: {SIMULATED}'})"
    return text


def vitals_text(vitals: Vitals) -> str:
    """What a benchmark found, in one line."""
    return (
        f"a call {ratio(vitals.speedup)} the reference ({vitals.call_ms.p50:.3g} and "
        f"{vitals.reference_call_ms:.3g} ms on its node), "
        f"{vitals.layers_quantized} layers quantized, {vitals.mean_weight_bits:.3g} bits per "
        f"weight on average, {vitals.weights_mb:.3g} MB, action error {vitals.action_error:.3g}, "
        f"kernel {kernel_note(vitals.kernel)}"
    )


def phase(name: str | None) -> str:
    """A trial that has no benchmark yet: what its worker does, or that none has begun."""
    return "waiting" if name is None else _PHASES.get(name, name)


def time_left(time_s: float) -> str:
    """An estimate, e.g. `about 3 min 20 s left`."""
    return f"about {duration(time_s)} left"


def pace(throughputs: Sequence[Throughput]) -> str | None:
    """How fast the workers that play now play together; None where none does."""
    if not throughputs:
        return None
    per_min = sum(throughput.episodes_per_min for throughput in throughputs)
    busy = sum(throughput.simulators_busy for throughput in throughputs)
    simulators = sum(throughput.simulators for throughput in throughputs)
    policy = sum(throughput.policy_busy for throughput in throughputs) / len(throughputs)
    return (
        f"{per_min:.3g} episodes per min, {busy:.1f} of {simulators} simulators busy, "
        f"policy {percent(policy)} busy"
    )


def result_text(result: TrialResult) -> str:
    """How a trial ended, in one line."""
    if result.outcome == "failed":
        return f"FAILED: {cause(result.error_type, result.reason)}"
    if result.outcome == "complete" and not result.episodes:
        return "complete: benchmarked, no episode asked for"
    text = f"{result.outcome}: {result.successes} of {result.counts.ran} episodes succeeded"
    errors = f", {result.errors} ended in errors" if result.errors else ""
    why = f" ({result.reason})" if result.outcome == "stopped" and result.reason else ""
    return f"{text}{errors}{why}"
