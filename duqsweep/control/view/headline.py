"""A sweep's answer in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from duqsweep.categories import named_category
from duqsweep.control.view import wording


def headline(content: Mapping[str, Any]) -> str:
    """The sweep's answer in one sentence: the fastest trial that is as good as the reference."""
    if not wording.plays(content):
        return _of_calls(content)
    success = wording.success_measure(content)
    front = [p for p in wording.front_points(content) if p[success] is not None]
    if not front:
        return "No trial is on the front yet."
    reference = next((p for p in content["points"] if p["name"] == "reference"), None)
    measured = reference is not None and reference.get(success) is not None
    yardstick = reference if measured and reference else front[0]
    rate = yardstick[success]
    as_good = [
        p
        for p in front
        if wording.success_counts(p, success)["success_high"] >= rate
        and p["episode_time_s"] is not None
    ]
    if not as_good:
        return f"{len(front)} trials are on the front."
    best = min(as_good, key=lambda p: p["episode_time_s"])
    category = named_category(success)
    what = f"success in category {category}" if category else "success"
    whose = "the reference's" if measured else f"trial {yardstick['trial']}'s"
    return (
        f"Trial {wording.label(best)} is the fastest whose {what} cannot be told from {whose} "
        f"({wording.percent(rate)}): {wording.percent(best[success])} "
        f"({wording.interval(wording.success_counts(best, success))}), "
        f"{wording.seconds(best['episode_time_s'])} an episode, "
        f"{wording.ratio(best['speedup'])} the unquantized, eager policy."
    )


def _of_calls(content: Mapping[str, Any]) -> str:
    """Without episodes: who is fastest, and what that costs."""
    timed = [point for point in wording.front_points(content) if point["call_ms"] is not None]
    if not timed:
        return "No trial is on the front yet."
    best = timed[0]
    return (
        f"Trial {wording.label(best)} is the fastest: {wording.milliseconds(best['call_ms'])} a "
        f"call, {wording.ratio(best['speedup'])} the unquantized, eager policy, at an action error "
        f"of {wording.number(best['action_error'])} and {wording.number(best['weights_mb'])} MB."
    )
