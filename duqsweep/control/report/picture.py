"""The front drawn: every trial, the staircase of the best, intervals; as PNG or as SVG."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from duqsweep.categories import is_success_rate
from duqsweep.control.front.measures import EPISODE_TIME_S, Measure
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.report.labels import Box, place_labels
from duqsweep.control.report.marks import (
    FRONT_COLOUR,
    REFERENCE_COLOUR,
    draw_legend,
    draw_point,
    draw_rug,
    style,
)
from duqsweep.control.view.wording import axis_label, point_label, point_summary

_LABEL_ALL_UP_TO = 40  # trials; beyond that only the front and named plans carry their number
LOG_FROM_RATIO = 12.0  # longest over shortest time from which a linear axis hides the short ones


class Picture(NamedTuple):
    """A front, drawn."""

    png: bytes  # 1600 × 1000 pixels
    svg: str  # see `draw_svg`


def load() -> None:
    """Import what drawing needs, which takes half a second."""
    import matplotlib.figure  # noqa: F401


def draw(front: Front) -> Picture:
    """The picture of a front in both forms; placing its labels once saves a quarter of the time."""
    figure = _figure(front)
    return Picture(_save(figure, "png"), _svg(figure, front))


def draw_svg(front: Front) -> str:
    """The picture as an `<svg>` element that needs nothing else; every trial has a tooltip."""
    return _svg(_figure(front), front)


def _svg(figure: Any, front: Front) -> str:
    svg = _save(figure, "svg").decode()
    svg = svg[svg.index("<svg") :]
    for point in front.points:
        mark = f'<g id="trial-{point.trial}">'
        svg = svg.replace(mark, f"{mark}<title>{escape(point_summary(point))}</title>")
    return svg


class _Drawn(NamedTuple):
    """A trial with a place in the picture."""

    point: FrontPoint
    x: float
    y: float


def _figure(front: Front) -> Any:
    from matplotlib.figure import Figure

    y_axis, x_axis = axes_of(front.objectives)
    figure = Figure(figsize=(10, 6.25), dpi=160, layout="constrained")
    axes = figure.subplots()
    drawn, timed_only = _places(front.points, x_axis, y_axis)
    _draw_reference(axes, front, x_axis)
    draw_rug(axes, timed_only)
    for point, x, y in drawn:
        draw_point(axes, point, (x, y), y_axis)
    _set_axes(axes, front, drawn, x_axis, y_axis)
    joined = is_joined(front)
    members = sorted((place for place in drawn if place.point.on_front), key=lambda p: p.x)
    steps = []
    if joined and members:
        steps = _draw_staircase(axes, front.objectives, members, x_axis)
    points = [place.point for place in drawn]
    draw_legend(axes, points, bool(timed_only), y_axis, joined)
    _draw_labels(figure, axes, drawn, steps)
    return figure


def is_joined(front: Front) -> bool:
    """Whether a line joins the front; with three objectives it is none."""
    return len(front.objectives) <= 2


def axes_of(objectives: Sequence[Objective]) -> tuple[Measure, Measure]:
    """Vertical and horizontal: a time lies along the bottom."""
    measures = [objective.measure for objective in objectives]
    if len(measures) == 1:
        return measures[0], EPISODE_TIME_S
    first, second = measures[:2]
    return (second, first) if first.is_time and not second.is_time else (first, second)


def _places(
    points: Sequence[FrontPoint], x_axis: Measure, y_axis: Measure
) -> tuple[list[_Drawn], list[float]]:
    """The trials that can be drawn, and the horizontal values of those that lack the other one."""
    drawn, rug = [], []
    for point in points:
        x, y = point.value(x_axis), point.value(y_axis)
        if x is not None and y is not None:
            drawn.append(_Drawn(point, x, y))
        elif x is not None:
            rug.append(x)
    return drawn, rug


def _draw_reference(axes: Any, front: Front, x_axis: Measure) -> None:
    value = front.reference.value(x_axis) if front.reference else None
    if value is not None:
        axes.axvline(value, color=REFERENCE_COLOUR, linestyle=(0, (2, 3)), linewidth=1)


def _set_axes(
    axes: Any, front: Front, drawn: Sequence[_Drawn], x_axis: Measure, y_axis: Measure
) -> None:
    times = [place.x for place in drawn if place.x > 0]
    if times and max(times) / min(times) > LOG_FROM_RATIO:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif not is_success_rate(x_axis.name):
        axes.set_xlim(left=0)
    for measure, set_limits, axis in (
        (y_axis, axes.set_ylim, axes.yaxis),
        (x_axis, axes.set_xlim, axes.xaxis),
    ):
        if is_success_rate(measure.name):
            from matplotlib.ticker import PercentFormatter

            lowest = _lowest([place.point for place in drawn], measure)
            set_limits(lowest - 0.03, 1 + 0.1 * (1 - lowest))
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(axis_label(x_axis, front), fontsize=11)
    axes.set_ylabel(axis_label(y_axis, front), fontsize=11)
    title = f"{front.sweep}: {len(front.points)} trials"
    if front.plays:
        title += f", {front.episodes} episodes"
    axes.set_title(title, fontsize=13, loc="left", fontweight="bold")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _lowest(points: Sequence[FrontPoint], rate: Measure) -> float:
    """Where an axis of success rates begins: the lowest rate or end of an interval of the front."""
    rates = [value for point in points if (value := point.value(rate)) is not None]
    on_front = [point.estimate(rate).success_low for point in points if point.on_front]
    lowest = min([*rates, *(low for low in on_front if low is not None)], default=0.0)
    return min(lowest, 0.9)


def _draw_staircase(
    axes: Any, objectives: Sequence[Objective], members: Sequence[_Drawn], x_axis: Measure
) -> list[tuple[float, float]]:
    """Join the front; returns the corners of the line, from left to right."""
    directions = {objective.name: objective.direction for objective in objectives}
    xs, ys = [place.x for place in members], [place.y for place in members]
    limits = axes.get_xlim()
    if directions.get(x_axis.name, "minimize") == "minimize":
        xs, ys, where = [*xs, limits[1]], [*ys, ys[-1]], "post"
    else:
        xs, ys, where = [limits[0], *xs], [ys[0], *ys], "pre"
    axes.step(xs, ys, where=where, color=FRONT_COLOUR, linewidth=1.8, alpha=0.8, zorder=4)
    axes.set_xlim(limits)
    corners = []
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        corners.append((x, y))
        if i + 1 < len(xs):
            corners.append((xs[i + 1], y) if where == "post" else (x, ys[i + 1]))
    return corners


def _draw_labels(
    figure: Any, axes: Any, drawn: Sequence[_Drawn], steps: Sequence[tuple[float, float]]
) -> None:
    """Trials beside their points, front first.

    A name that finds no free place is left out, and so is a number.
    """
    from matplotlib.patheffects import withStroke

    figure.draw_without_rendering()  # fixes the layout, so that data → pixels holds
    area = axes.get_window_extent()
    everybody = len(drawn) <= _LABEL_ALL_UP_TO
    wanted = [p for p in drawn if p.point.on_front or p.point.name or everybody]
    wanted.sort(key=lambda p: (not p.point.on_front, not p.point.name, p.point.trial))
    texts = [(point_label(place.point), str(place.point.trial)) for place in wanted]
    pixel = figure.dpi / 72
    sizes = [[((5.3 * len(text) + 5) * pixel, 10 * pixel) for text in forms] for forms in texts]
    anchors = [tuple(axes.transData.transform((place.x, place.y))) for place in wanted]
    marks = axes.transData.transform([(place.x, place.y) for place in drawn] or [(0, 0)])
    places = place_labels(
        anchors,
        sizes,
        marks=[(float(x), float(y)) for x, y in marks],
        gap=6 * pixel,
        area=Box(area.x0, area.y0, area.x1, area.y1),
        lines=[
            Box(min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1)
            for (a, b), (c, d) in itertools.pairwise(axes.transData.transform(steps or [(0, 0)]))
        ],
    )
    for (point, _x, _y), forms, place in zip(wanted, texts, places, strict=True):
        if place is None:
            continue
        x, y = axes.transData.inverted().transform((place.box.x0, place.box.y0))
        axes.text(
            x,
            y,
            forms[place.form],
            fontsize=8.5,
            va="bottom",
            ha="left",
            color=style(point)[1] if point.on_front else "#555555",
            fontweight="bold" if point.on_front else "normal",
            path_effects=[withStroke(linewidth=3, foreground="white")],  # over the front's line
            zorder=6,
        )


def _save(figure: Any, kind: str) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "duqsweep",
    }  # real text, equal bytes each time
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
