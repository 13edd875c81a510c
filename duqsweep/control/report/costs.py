"""What a sweep's search cost and brought, as parts of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import Any

from duqsweep.categories import SUCCESS_RATE
from duqsweep.control.front.history import FrontHistory
from duqsweep.control.front.measures import Measure
from duqsweep.control.front.records import Front
from duqsweep.control.report.associations import associations
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view.wording import percent_range, short_params

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 220, 64, 34  # of the picture, pixels


def episodes_line(views: Sequence[TrialView], budget: Mapping[str, Any]) -> str:
    """Episodes that were played, and what a fixed number per trial would have cost."""
    fixed = budget.get("episodes_per_trial")
    tried = [view for view in views if view.outcome != "failed"]
    played = sum(len(view.episodes) for view in tried)
    if not fixed or not played:
        return ""
    full = fixed * len(tried)
    line = (
        f"{played:,} episodes were played. A fixed number of {fixed} for each of the {len(tried)} "
        f"trials that did not fail would be {full:,}"
    )
    return f"{line}: {full - played:,} were saved." if played < full else f"{line}."


def growth_picture(front: Front, views: Sequence[TrialView]) -> str:
    """How the hypervolume grew with the trials, as an `<svg>`; empty with fewer than two."""
    steps = FrontHistory().steps(front, views)
    if len(steps) < 2:
        return ""
    episodes = {view.number: len(view.episodes) for view in views}
    spent = list(accumulate(episodes[step.trial] for step in steps))
    xs, what = (spent, "episodes") if spent[-1] else (list(range(1, len(steps) + 1)), "trials")
    most_x, most_y = xs[-1], max(step.hypervolume for step in steps) or 1.0
    x_of = (_WIDTH - _LEFT - 12) / most_x
    y_of = (_HEIGHT - _BOTTOM - 12) / most_y
    floor = _HEIGHT - _BOTTOM
    path = f"M{_LEFT} {floor}" + "".join(
        f"H{_LEFT + x * x_of:.1f}V{floor - step.hypervolume * y_of:.1f}"
        for x, step in zip(xs, steps, strict=True)
    )
    said = f"hypervolume {most_y:.4g} after {len(steps)} trials and {front.episodes:,} episodes"
    return (
        f'<div class="growth"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(said)}"><line x1="{_LEFT}" y1="{floor}" x2="{_WIDTH}" y2="{floor}"/>'
        f'<path d="{path}"/>'
        f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end">0</text>'
        f'<text x="{_LEFT - 6}" y="{16}" text-anchor="end">{most_y:.3g}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 12}" text-anchor="end">{most_x:,} {what}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">hypervolume, trial by trial</text></svg></div>'
    )


def settings_that_matter(front: Front) -> str:
    """Bars of each setting's share, per objective; empty where they are not known.

    Importances for success, where the front has them; associations for all else.
    """
    return "".join(
        _importances(front)
        if objective.name == SUCCESS_RATE and front.importances
        else _associations(front, objective.measure)
        for objective in front.objectives
    )


def _importances(front: Front) -> str:
    found = short_params({importance.parameter: importance for importance in front.importances})
    bars = [
        _bar(name, each.share, f" ({percent_range(each.low, each.high)})")
        for name, each in found.items()
    ]
    return _block("success rate: importance", _IMPORTANCE, bars)


def _associations(front: Front, measure: Measure) -> str:
    shares = short_params(associations(front, measure))
    bars = [_bar(name, each) for name, each in shares.items()]
    return _block(f"{measure.label}: association", _ASSOCIATION, bars)


_IMPORTANCE = (
    "Share of its variance over the whole space that a setting explains alone, by a model of all "
    "episodes, with a 90 % interval."
)
_ASSOCIATION = (
    "Share of the differences between the trials of this sweep that a setting explains alone "
    "(adjusted R² of ranks). A sampler chose these trials, so settings may stand for each other."
)


def _block(objective: str, note: str, bars: Sequence[str]) -> str:
    if not bars:
        return ""
    return (
        f'<h3>{escape(objective)}</h3><p class="note">{note}</p>'
        f'<div class="weights">{"".join(bars)}</div>'
    )


def _bar(name: str, share: float, more: str = "") -> str:
    return (
        f"<span>{escape(name)}</span>"
        f'<div class="bar"><span class="part-1" style="width:{100 * share:.1f}%"></span></div>'
        f"<span>{100 * share:.0f} %{more}</span>"
    )
