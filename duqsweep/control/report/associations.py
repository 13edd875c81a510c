"""How an objective goes along with each setting, among the trials that a sweep ran.

An importance (`control/kghv/importances.py`) is something else: what success depends on over the
whole space, as a model sees it. docs/search.md tells the two apart.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from duqsweep.control.front.measures import Measure
from duqsweep.control.front.records import Front

LEAST_TRIALS = 10  # fewer say more about chance than about a setting
_GROUPS = 6  # of trials, at most; a number with more values is cut into as many ranges


def associations(front: Front, measure: Measure) -> dict[str, float]:
    """Setting → share of the differences in `measure` between trials, 0 to 1; largest first.

    It is the adjusted R² of a one-way analysis of variance of ranks (Kruskal and Wallis), over the
    trials that have the setting: 0 on average for one without effect. Settings interact, so shares
    need not add up to 1. Empty with fewer than `LEAST_TRIALS` trials.
    """
    trials = [
        (point.params, value)
        for point in front.points
        if point.outcome == "complete" and (value := point.value(measure)) is not None
    ]
    keys = sorted({key for params, _ in trials for key in params})
    shares = {key: _share(key, trials) for key in keys}
    known = {key: share for key, share in shares.items() if share is not None}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def _share(key: str, trials: Sequence[tuple[Mapping[str, Any], float]]) -> float | None:
    """None where too few trials have the setting, or it or the measure does not vary."""
    settings = [params[key] for params, _ in trials if key in params]
    values = _ranks([value for params, value in trials if key in params])
    groups = _grouped(settings, values)
    free = len(values) - len(groups)
    mean = fmean(values) if values else 0.0
    total = sum((value - mean) ** 2 for value in values)
    if len(values) < LEAST_TRIALS or len(groups) < 2 or free < 1 or not total:
        return None
    within = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    return max(0.0, 1 - (within / free) / (total / (len(values) - 1)))


def _ranks(values: Sequence[float]) -> list[float]:
    """Each value's place among all, equal values sharing the middle of theirs."""
    ordered = sorted(values)
    return [(bisect_left(ordered, v) + bisect_right(ordered, v)) / 2 for v in values]


def _grouped(settings: Sequence[Any], values: Sequence[float]) -> list[list[float]]:
    """The values by setting."""
    known = sorted(set(settings), key=lambda setting: (isinstance(setting, str), setting))
    width = max(1.0, len(known) / _GROUPS)
    group_of = {setting: int(i / width) for i, setting in enumerate(known)}
    groups: dict[int, list[float]] = {}
    for setting, value in zip(settings, values, strict=True):
        groups.setdefault(group_of[setting], []).append(value)
    return list(groups.values())
