"""The settings of one trial in a form that others can use; which trial, by number or by rule."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

import yaml

from duqsweep.control.front.measures import ACTION_ERROR, EPISODE_TIME_S
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.trial_words import TrialWords
from duqsweep.errors import ConfigError
from duqsweep.spec import Trial

_FASTEST = re.compile(r"fastest@(success(?:\.\w+)?>=|action_error<=)(\d*\.?\d+(?:e-?\d+)?)")
PICKS = "knee, fastest@success>=X, fastest@success.CATEGORY>=X or fastest@action_error<=X"


def pick(front: Front, rule: str) -> int:
    """The trial that a rule chooses among the points of a front.

    Args:
        front: Of a sweep.
        rule: `knee`, the front's farthest point from the line between its ends, of those that
            `confirm` has not refuted; or `fastest@success>=X`, the fastest whose success rate is at
            least X by the lower end of its interval, see `lower_bound` (in one category:
            `fastest@success.CATEGORY>=X`); or `fastest@action_error<=X`. Knees are between success
            and time, and where no episode was played between action error and time.

    Raises:
        ConfigError: The rule is unknown, or no point meets it.
    """
    members = [point for point in front.points if point.on_front]
    if not members:
        raise ConfigError("the front is empty: there is nothing to pick")
    if rule == "knee":
        left = [point for point in members if point.state != "refuted"]
        if not left:
            raise ConfigError(
                f"`confirm` has refuted all {len(members)} points of the front; "
                "--trial N exports one of them"
            )
        return knee(left).trial
    wanted = _FASTEST.fullmatch(rule.replace(" ", ""))
    if not wanted:
        raise ConfigError(f"--pick must be {PICKS}, got {rule!r}")
    bound, limit = wanted[1], float(wanted[2])
    good = [point for point in members if _meets(point, bound, limit)]
    if not good:
        raise ConfigError(
            f"no point of the front has {bound} {wanted[2]}; {_closest(members, bound)}"
        )
    return min(good, key=_time).trial


def lower_bound(point: FrontPoint, category: str = "") -> float | None:
    """The lower end of the interval of a point's success rate.

    The exact interval on reserved states, which holds for all confirmed points jointly; of a point
    that was not tried there, and of a category, Wilson's at 95 % from the search's episodes.

    Raises:
        ConfigError: There is no such category.
    """
    if category:
        if category not in point.categories:
            named = ", ".join(point.categories) or "none"
            raise ConfigError(f"there is no category {category!r}; categories are: {named}")
        return point.categories[category].success_low
    success = point.success if point.reserved is None else point.reserved.success
    return success.success_low


def remarks(front: Front, trial: int) -> list[str]:
    """What one must know of a trial before it is used, in sentences; mostly one."""
    point = next((point for point in front.points if point.trial == trial), None)
    low = None if point is None else lower_bound(point)
    if point is None or low is None:
        return []
    source = "Wilson, 95 %" if point.reserved is None else "exact, on reserved states"
    said = f"trial {trial} succeeds in at least {100 * low:.1f} % of episodes ({source})"
    reserved = point.reserved
    if point.state == "refuted" and reserved is not None:
        loss, at_least = 100 * (reserved.loss or 0.0), 100 * (reserved.loss_low or 0.0)
        return [
            f"{said}; REFUTED: on reserved states it loses {loss:.3g} points against the "
            f"reference, at least {at_least:.3g}"
        ]
    if point.state == "confirmed":
        return [f"{said}; confirmed on reserved states"]
    hint = "`confirm` tests it" if reserved is None else "`confirm` could not decide"
    return [f"{said}; unconfirmed: {hint}"]


def _time(point: FrontPoint) -> float:
    time_s = point.value(EPISODE_TIME_S)
    return math.inf if time_s is None else time_s


def _meets(point: FrontPoint, bound: str, limit: float) -> bool:
    if bound == "action_error<=":
        error = point.value(ACTION_ERROR)
        return error is not None and error <= limit
    low = lower_bound(point, _category(bound))
    return low is not None and low >= limit


def _category(bound: str) -> str:
    """The category that `success.CATEGORY>=` names; empty for `success>=`."""
    return bound.removesuffix(">=").partition(".")[2]


def _closest(members: Sequence[FrontPoint], bound: str) -> str:
    if bound == "action_error<=":
        return f"the best has {-max(map(_goodness, members)):.3g}"
    lows = [(lower_bound(point, _category(bound)), point) for point in members]
    known = [(low, point) for low, point in lows if low is not None]
    if not known:
        return "its trials played no episodes: pick knee or fastest@action_error<=X"
    low, best = max(known, key=lambda pair: pair[0])
    return (
        f"by the lower end of its interval the best, trial {best.trial}, has {low:.3f}; "
        "more episodes narrow intervals"
    )


def knee(members: Sequence[FrontPoint]) -> FrontPoint:
    """The point of a front farthest from the line between its fastest and its best one.

    The best succeeds most often, or where no episode was played has the smallest action error. Both
    axes are scaled to the front's own range first; of a front of one or two points, the best.
    """
    rates = [point.success.success_rate for point in members]
    played = [rate for rate in rates if rate is not None]
    goods = played if len(played) == len(members) else [_goodness(p) for p in members]
    times = [_time(point) for point in members]
    good_span, time_span = max(goods) - min(goods), max(times) - min(times)
    if len(members) < 3 or not good_span or not time_span:
        return members[goods.index(max(goods))]
    gains = [
        (good - min(goods)) / good_span - (time - min(times)) / time_span
        for good, time in zip(goods, times, strict=True)
    ]
    return members[gains.index(max(gains))]


def _goodness(point: FrontPoint) -> float:
    """Minus the action error."""
    error = point.value(ACTION_ERROR)
    return -math.inf if error is None else -error


def as_plan(trial: Trial, sweep: str, words: TrialWords) -> str:
    """A trial as a named plan for conf/, with the command that evaluates it again."""
    command = shlex.join(words.overrides)
    name = f"{sweep}_{trial.number:04d}"
    body = yaml.safe_dump({"plans": {name: dict(words.settings)}}, sort_keys=False)
    return (
        f"# Trial {trial.number} of sweep {sweep}, fingerprint {trial.fingerprint}.\n"
        f"# python -m duqsweep evaluate {command}\n"
        f"# As a plan of a sweep file: enqueue: [{name}]; it is this trial with "
        f"{shlex.join(words.shared)}\n{body}"
    )
