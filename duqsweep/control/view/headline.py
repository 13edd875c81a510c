"""A sweep's answer in one sentence."""

from __future__ import annotations

import math

from duqsweep.categories import named_category
from duqsweep.control.front.formats import probability, ratio
from duqsweep.control.front.measures import (
    ACTION_ERROR,
    CALL_MS,
    EPISODE_TIME_S,
    SPEEDUP,
    WEIGHTS_MB,
    Measure,
)
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.trials.reader import REFERENCE
from duqsweep.control.view.wording import interval, percent_range, point_label, short_params

SHOWN = 5  # most important parameters
EMPTY = "No trial is on the front yet."


def first_line(front: Front) -> str:
    """The verdict; where nothing was tested, the headline, which rewards having few episodes."""
    return verdict_line(front) or headline(front)


def headline(front: Front) -> str:
    """The sweep's answer in one sentence: the fastest trial that is as good as the reference."""
    if not front.plays:
        return _of_calls(front)
    success = front.success
    members = [point for point in front.members if point.value(success) is not None]
    if not members:
        return EMPTY
    reference = next((p for p in front.points if p.name == "reference"), None)
    measured = reference is not None and reference.value(success) is not None
    yardstick = reference if measured and reference else members[0]
    rate = yardstick.value(success) or 0.0
    as_good = [
        (time, point)
        for point in members
        if point.state != "refuted"
        and (point.estimate(success).success_high or 0.0) >= rate
        and (time := point.value(EPISODE_TIME_S)) is not None
    ]
    if not as_good:
        return f"{len(members)} trials are on the front."
    _, best = min(as_good, key=lambda item: item[0])
    whose = "the reference's" if measured else f"trial {yardstick.trial}'s"
    return (
        f"Trial {point_label(best)} is the fastest whose {_what(success)} cannot be told from "
        f"{whose} ({yardstick.text(success)}): {best.text(success)} "
        f"({interval(best.estimate(success))}), {best.text(EPISODE_TIME_S)} per episode, "
        f"{ratio(front.episode_speedup(best))} the unquantized, eager policy "
        f"({best.text(SPEEDUP)} per call)."
    )


def verdict_line(front: Front) -> str | None:
    """Which trial is shown to lose little against the reference; None where nothing was tested.

    A trial that `confirm` has confirmed goes before one that only the search's episodes speak for,
    unless that one is faster.
    """
    verdict, confirmed = front.verdict, fastest_confirmed(front)
    if verdict is None or not (verdict.tested or confirmed):
        return None
    points = f"{100 * verdict.margin:.3g} points of success"
    sure = f"with {100 * verdict.confidence:.3g} % confidence"
    by_number = {point.trial: point for point in front.points}
    passed = by_number.get(-1 if verdict.trial is None else verdict.trial)
    if confirmed is not None and (passed is None or _time(confirmed) <= _time(passed)):
        said = (
            f"Verdict: trial {point_label(confirmed)} is the fastest that is confirmed: on states "
            f"that no search uses it is shown to lose at most {points} against the reference."
        )
    elif passed is not None and verdict.loss is not None and verdict.loss_high is not None:
        said = (
            f"Verdict: trial {point_label(passed)} is the fastest that loses "
            f"at most {points} against the reference, {sure}: over {verdict.episodes} common "
            f"episodes it {'gains' if verdict.loss < 0 else 'loses'} "
            f"{100 * abs(verdict.loss):.3g} points, and a loss of {100 * verdict.loss_high:.3g} or "
            "more is excluded."
        )
    else:
        said = f"Verdict: none yet. No trial is shown to lose at most {points}, {sure}."
    upcoming = by_number.get(-1 if verdict.next_trial is None else verdict.next_trial)
    if upcoming is None or (confirmed is not None and _time(confirmed) <= _time(upcoming)):
        return said
    said = (
        f"{said} About {verdict.episodes_needed} common episodes would decide on trial "
        f"{point_label(upcoming)}, if it continues like this."
    )
    if upcoming.reserved is not None:
        return said
    return (
        f"{said} python -m duqsweep confirm DIR --trials {upcoming.trial} tests it on states that "
        "no search uses."
    )


def fastest_confirmed(front: Front) -> FrontPoint | None:
    """Of the trials that `confirm` has confirmed, but for the reference."""
    confirmed = [p for p in front.points if p.state == "confirmed" and p.name != REFERENCE]
    return min(confirmed, key=_time, default=None)


def _time(point: FrontPoint) -> float:
    time = point.value(EPISODE_TIME_S)
    return math.inf if time is None else time


def answer_line(front: Front) -> str | None:
    """What is known of the question of `budget.until`; None where none was asked."""
    answer = front.answer
    if answer is None:
        return None
    known = "answered" if answer.is_known else "not answered yet"
    if answer.trial is None:
        return (
            f"Question {answer.question}: {known}. The front is expected to lack "
            f"{100 * (answer.front_loss or 0.0):.1f} % of the hypervolume of all trials, and the "
            f"best new point to add {100 * (answer.new_gain or 0.0):.1f} %."
        )
    labels = {point.trial: point_label(point) for point in front.points}
    return (
        f"Question {answer.question}: {known}. Of the trials it is trial "
        f"{labels.get(answer.trial, answer.trial)} with probability "
        f"{probability(answer.probability)}; a new point is predicted to beat it with probability "
        f"{probability(answer.rival_probability)} at most."
    )


def importance_line(front: Front) -> str | None:
    """What success depends on most; None where that was not computed."""
    if not front.importances:
        return None
    names = list(short_params({found.parameter: None for found in front.importances}))
    shares = [
        f"{name} {100 * found.share:.0f} % ({percent_range(found.low, found.high)})"
        for name, found in zip(names[:SHOWN], front.importances, strict=False)
    ]
    return f"Success depends on: {', '.join(shares)} of its variance, alone, with 90 % intervals."


def _what(success: Measure) -> str:
    category = named_category(success.name)
    return f"success in category {category}" if category else "success"


def _of_calls(front: Front) -> str:
    """Without episodes: which trial is fastest, and what that costs."""
    timed: list[FrontPoint] = [p for p in front.members if p.value(CALL_MS) is not None]
    if not timed:
        return EMPTY
    best = timed[0]
    return (
        f"Trial {point_label(best)} is the fastest: {best.text(CALL_MS)} per call, "
        f"{best.text(SPEEDUP)} the unquantized, eager policy, at an action error of "
        f"{best.text(ACTION_ERROR)} and {best.text(WEIGHTS_MB)} MB."
    )
