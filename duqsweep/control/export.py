"""The settings of one trial in a form that others can use; which trial, by number or by rule."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence

import yaml

from duqsweep.control.front.measures import ACTION_ERROR, EPISODE_TIME_S
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.errors import ConfigError
from duqsweep.spec import FULL_PRECISION, INTEGER_KERNELS, QuantSpec, Trial

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


def as_plan(trial: Trial, sweep: str) -> str:
    """A trial as a named plan for conf/, with the command that evaluates it again."""
    overrides = " ".join(
        shlex.quote(f"{key}={_text(value)}") for key, value in trial.params.items()
    )
    name = f"{sweep}_{trial.number:04d}"
    body = yaml.safe_dump({"plans": {name: dict(trial.params)}}, sort_keys=False)
    return (
        f"# Trial {trial.number} of sweep {sweep}, fingerprint {trial.fingerprint}.\n"
        f"# python -m duqsweep evaluate {overrides}\n{body}"
    )


def as_openpi_env(trial: Trial, sweep: str, bits: Mapping[str, tuple[int, int]]) -> str:
    """A trial as a shell script of the variables that the openpi DuQuant prototype reads.

    Layers are named in full, because the prototype compares whole names, and the pack folder
    carries the fingerprint, because the prototype would load the packs of other settings.

    Args:
        trial: The trial.
        sweep: Name of its sweep.
        bits: Its quantized layers → weight bits, activation bits.

    Raises:
        ConfigError: The prototype has no variable for one of the settings.
    """
    spec = trial.spec
    lines = [
        "#!/usr/bin/env bash",
        f"# Trial {trial.number} of duqsweep's sweep {sweep}, fingerprint {trial.fingerprint}.",
        "# Denoising steps have no variable: give sample_actions "
        f"num_steps={spec.policy.num_steps}.",
    ]
    if bits:
        lines += [*_differences(spec.quant), *_quant_lines(spec.quant, bits, trial.fingerprint)]
    else:
        lines.append("# Nothing is quantized: no OPENPI_DUQUANT_ variable may be set.")
    switch = "unset" if spec.runtime.compile else "export"
    value = "" if spec.runtime.compile else "=1"
    names = ("OPENPI_DISABLE_TORCH_COMPILE", "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE")
    lines += [f"{switch} {name}{value}" for name in names]
    return "\n".join(lines) + "\n"


def _quant_lines(
    quant: QuantSpec, bits: Mapping[str, tuple[int, int]], fingerprint: str
) -> list[str]:
    act_bits = {act for _, act in bits.values()}
    if len(act_bits) > 1:
        raise ConfigError(f"the prototype has one number of activation bits, this trial {act_bits}")
    act = act_bits.pop()
    variables = {
        "SCOPE": "paligemma_with_expert.",
        "LAYERS": ",".join(bits),
        "WBITS": ",".join(f"{name}:{weight}" for name, (weight, _) in bits.items()),
        "WBITS_DEFAULT": "0",
        "ABITS": str(0 if act == FULL_PRECISION else act),
        "BLOCK": str(quant.block_size),
        "PERMUTE": str(int(quant.permutation != "none")),
        "ROW_ROT": "restore" if quant.row_rotation else "0",
        "ACT_PCT": str(quant.act_percentile),
        "PACKDIR": f"./duquant_packed/{fingerprint}",
    }
    return [f"export OPENPI_DUQUANT_{key}={shlex.quote(value)}" for key, value in variables.items()]


def _differences(quant: QuantSpec) -> list[str]:
    """Comments where the prototype cannot do what was measured."""
    measured = {
        "rotation": (quant.rotation, "svd"),
        "permutation": (quant.permutation, "prototype"),
        "act_scale": (quant.act_scale, "static"),
    }
    lines = [
        f"# Measured with {name}={ours}; the prototype only has {its}: expect another success rate."
        for name, (ours, its) in measured.items()
        if ours not in (its, "none")
    ]
    if quant.kernel in INTEGER_KERNELS:
        lines.append(f"# Measured with kernel={quant.kernel}; the prototype simulates, and slowly.")
    return lines


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
