"""How numbers of a sweep read: the same words in the terminal, the picture, the page and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from duqsweep.categories import SUCCESS_RATE, is_success_rate, named_category
from duqsweep.result import TrialResult, Vitals

NONE = "–"
SLOW_KERNELS = {"none", "fake", "loop", None}  # none of them is faster with fewer bits
SIMULATED = "simulated quantization: fewer bits do not change the time measured here"
_KERNEL_NOTES = {
    "none": "not quantized",
    "fake": "fake (simulated)",
    "loop": "loop (the slow baseline)",
    "int8": "int8 (multiplies integers)",
    "w4a8": "w4a8 (multiplies integers, weights of 4 bits packed)",
}
_AXES = {
    "success_rate": "success rate",
    "episode_time_s": "policy time of an episode [s], faster to the left",
    "call_ms": "time of a policy call [ms], faster to the left",
    "modelled_time_s": "modelled, not measured: time of an episode on an H200 at these bits [s]",
    "weights_mb": "weights [MB]",
    "action_error": "action error to the unquantized policy [normalised RMSE]",
    "mean_weight_bits": "mean bits of a weight",
    "steps_to_success": "control steps to success",
}
_Point = Mapping[str, Any]


def percent(rate: float | None) -> str:
    """`0.925` as `92.5 %`."""
    return NONE if rate is None else f"{100 * rate:.1f} %"


def interval(point: _Point) -> str:
    """The 95 % interval of a success rate, of a point or of its category, e.g. `84–96 %`."""
    if point["success_low"] is None:
        return NONE
    return f"{100 * point['success_low']:.0f}–{100 * point['success_high']:.0f} %"


def categories(points: Sequence[_Point]) -> list[str]:
    """The categories of the suite that points are of, in its order; mostly none."""
    return next((list(p["categories"]) for p in points if "categories" in p), [])


def category_cell(point: _Point, category: str) -> str:
    """A category's success in percent with its 95 % interval, e.g. `92 (84–96)`."""
    counts = point.get("categories", {}).get(category, {})
    if counts.get("success_rate") is None:
        return NONE
    return f"{100 * counts['success_rate']:.0f} ({interval(counts).removesuffix(' %')})"


def success_measure(content: Mapping[str, Any]) -> str:
    """The success rate that the sweep trades first; where it trades none, that of all episodes."""
    names = (objective["name"] for objective in content["objectives"])
    return next((name for name in names if is_success_rate(name)), SUCCESS_RATE)


def success_counts(point: _Point, measure: str) -> _Point:
    """Where a point has the rate and the interval of a success measure."""
    category = named_category(measure)
    counts: _Point = point if category is None else point["categories"][category]
    return counts


def seconds(time_s: float | None) -> str:
    """A time with three significant digits and its unit."""
    if time_s is None:
        return NONE
    return f"{time_s:,.0f} s" if time_s >= 100 else f"{time_s:.3g} s"


def milliseconds(time_ms: float | None) -> str:
    """A call's time with three significant digits and its unit."""
    return (
        NONE if time_ms is None else f"{time_ms:.3g} ms" if time_ms < 1000 else f"{time_ms:,.0f} ms"
    )


def duration(time_s: float) -> str:
    """A waiting time, e.g. `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(time_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ratio(value: float | None) -> str:
    """A speed-up, e.g. `1.85×`."""
    if value is None:
        return NONE
    return f"{value:.2f}×" if value < 10 else f"{value:,.0f}×"


def measured(name: str, value: Any) -> str:
    """The value of an objective in a table cell."""
    return percent(value) if is_success_rate(name) else number(value)


def number(value: Any, digits: int = 3) -> str:
    """Any value in a table cell."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


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


def telling_params(point: _Point, content: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a point that differ between trials of the sweep, under short names."""
    everyone = [other["params"] for other in content["points"]]
    telling = {
        key
        for params in everyone
        for key in params
        if len(everyone) == 1 or any(other.get(key) != params[key] for other in everyone)
    }
    return short_params({key: value for key, value in point["params"].items() if key in telling})


def settings(params: Mapping[str, Any]) -> str:
    """Parameters in one line, e.g. `block_size=32 num_steps=4`."""
    return " ".join(f"{name}={number(value)}" for name, value in params.items())


def label(point: _Point) -> str:
    """`7` or `7 plan_a`."""
    return f"{point['trial']} {point['name']}" if point["name"] else str(point["trial"])


def point_summary(point: _Point) -> str:
    """A trial in one or two sentences."""
    params = settings(short_params(point["params"]))
    if point["outcome"] == "failed":
        return f"trial {label(point)}: failed, {point['reason']}. {params}"
    if not point["episodes"]:
        return (
            f"trial {label(point)}: {milliseconds(point['call_ms'])} a call, "
            f"{ratio(point['speedup'])} the reference, {number(point['weights_mb'])} MB, action "
            f"error {number(point['action_error'])}. {params}"
        )
    return (
        f"trial {label(point)}: success {percent(point['success_rate'])} ({interval(point)}, "
        f"{point['episodes']} episodes), {seconds(point['episode_time_s'])} an episode, "
        f"{ratio(point['speedup'])} the reference. {params}"
    )


def in_short(point: _Point) -> str:
    """Success and time of an episode; of a trial that played none, a call's time and its error."""
    if point["episodes"]:
        return f"{percent(point['success_rate'])}, {seconds(point['episode_time_s'])}"
    return f"{milliseconds(point['call_ms'])}, error {number(point['action_error'])}"


def why(point: _Point) -> str:
    """Why a trial ended as it did, the type of an error first."""
    return cause(point["error_type"], point["reason"])


def cause(error_type: str | None, reason: str) -> str:
    """The type of an error and its text, which may begin with the type already."""
    if not error_type or reason.startswith(f"{error_type}:"):
        return reason
    return f"{error_type}: {reason}" if reason else error_type


def counts_line(content: Mapping[str, Any]) -> str:
    """`21 complete · 1 stopped · 1 failed · 1,320 episodes`."""
    parts = [f"{count} {name}" for name, count in content["counts"].items() if count]
    played = f"{content['episodes']:,} episodes" if plays(content) else "no episodes"
    return " · ".join([*parts, played])


def plays(content: Mapping[str, Any]) -> bool:
    """Whether any trial walked an episode; a sweep of latency alone benchmarks and plays none."""
    return bool(content["episodes"])


def axis_label(name: str, content: Mapping[str, Any]) -> str:
    """A measure's name with its unit, and what its times mean."""
    category = named_category(name)
    text = f"success rate, category {category}" if category else _AXES.get(name, name)
    kernels = {point["kernel"] for point in content["points"]}
    if name in ("episode_time_s", "call_ms") and "fake" in kernels:
        return f"{text}\n({SIMULATED if kernels <= SLOW_KERNELS else f'kernel fake: {SIMULATED}'})"
    return text


def probability(value: float | None) -> str:
    """A probability with two digits."""
    return NONE if value is None else f"{value:.2f}"


def front_points(content: Mapping[str, Any]) -> list[_Point]:
    """The points on the front, best success first, then fastest."""
    front = [point for point in content["points"] if point["on_front"]]
    time = "episode_time_s" if plays(content) else "call_ms"
    success = success_measure(content)
    return sorted(front, key=lambda p: (-(p[success] or 0), p[time] or 0))


def vitals_text(vitals: Vitals) -> str:
    """What a benchmark found, in one line."""
    return (
        f"{vitals.call_ms.p50:.3g} ms a call, {ratio(vitals.speedup)} the reference, "
        f"{vitals.layers_quantized} layers quantized, {vitals.weights_mb:.3g} MB, "
        f"action error {vitals.action_error:.3g}, kernel {kernel_note(vitals.kernel)}"
    )


def result_text(result: TrialResult) -> str:
    """How a trial ended, in one line."""
    if result.outcome == "failed":
        return f"FAILED: {cause(result.error_type, result.reason)}"
    if result.outcome == "complete" and not result.episodes:
        return "complete: benchmarked, no episode asked for"
    ran = result.episodes - result.errors
    text = f"{result.outcome}: {result.successes} of {ran} episodes succeeded"
    errors = f", {result.errors} broke down" if result.errors else ""
    why = f" ({result.reason})" if result.outcome == "stopped" and result.reason else ""
    return f"{text}{errors}{why}"
