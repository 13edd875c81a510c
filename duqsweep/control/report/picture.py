"""The front drawn: every trial, the staircase of the best, intervals; as PNG or as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from duqsweep.categories import is_success_rate
from duqsweep.control.report.labels import Box, place_labels
from duqsweep.control.report.marks import (
    FRONT_COLOUR,
    REFERENCE_COLOUR,
    draw_legend,
    draw_point,
    draw_rug,
    style,
)
from duqsweep.control.view.wording import axis_label, plays, point_summary

_LABEL_ALL_UP_TO = 40  # trials; beyond that only the front and named plans carry their number
_LOG_FROM_RATIO = 12.0  # longest over shortest time from which a linear axis hides the short ones
_TIMES = ("episode_time_s", "call_ms")
_Point = Mapping[str, Any]


def draw_png(content: Mapping[str, Any]) -> bytes:
    """The picture of `front.json`'s content as PNG, 1600 × 1000 pixels."""
    return _save(_figure(content), "png")


def draw_svg(content: Mapping[str, Any]) -> str:
    """The same picture as an `<svg>` element that needs nothing else; every trial has a tooltip."""
    svg = _save(_figure(content), "svg").decode()
    svg = svg[svg.index("<svg") :]
    for point in content["points"]:
        mark = f'<g id="trial-{point["trial"]}">'
        svg = svg.replace(mark, f"{mark}<title>{escape(point_summary(point))}</title>")
    return svg


def _figure(content: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure

    y_name, x_name = _axes_names(content["objectives"])
    figure = Figure(figsize=(10, 6.25), dpi=160, layout="constrained")
    axes = figure.subplots()
    drawn = [p for p in content["points"] if _has(p, x_name) and _has(p, y_name)]
    _draw_reference(axes, content, x_name)
    timed_only = [p[x_name] for p in content["points"] if _has(p, x_name) and p not in drawn]
    draw_rug(axes, timed_only)
    for point in drawn:
        draw_point(axes, point, x_name, y_name)
    front = sorted((p for p in drawn if p["on_front"]), key=lambda p: p[x_name])
    _set_axes(axes, content, drawn, (x_name, y_name))
    joined = len(content["objectives"]) <= 2  # with three the front is no line
    if joined and front:
        _draw_staircase(axes, content["objectives"], front, (x_name, y_name))
    draw_legend(axes, drawn, bool(timed_only), y_name, joined)
    _draw_labels(figure, axes, drawn, (x_name, y_name))
    return figure


def _axes_names(objectives: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """Vertical and horizontal: a time lies along the bottom."""
    names = [objective["name"] for objective in objectives]
    if len(names) == 1:
        return names[0], "episode_time_s"
    first, second = names[:2]
    return (second, first) if first in _TIMES and second not in _TIMES else (first, second)


def _has(point: _Point, name: str) -> bool:
    return point.get(name) is not None


def _draw_reference(axes: Any, content: Mapping[str, Any], x_name: str) -> None:
    reference = content["reference"]
    if reference and x_name in _TIMES:
        axes.axvline(reference[x_name], color=REFERENCE_COLOUR, linestyle=(0, (2, 3)), linewidth=1)


def _set_axes(
    axes: Any, content: Mapping[str, Any], drawn: list[_Point], names: tuple[str, str]
) -> None:
    x_name, y_name = names
    times = [point[x_name] for point in drawn if point[x_name] > 0]
    if times and max(times) / min(times) > _LOG_FROM_RATIO:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif not is_success_rate(x_name):
        axes.set_xlim(left=0)
    for name, set_limits, axis in (
        (y_name, axes.set_ylim, axes.yaxis),
        (x_name, axes.set_xlim, axes.xaxis),
    ):
        if is_success_rate(name):
            from matplotlib.ticker import PercentFormatter

            set_limits(-0.03, 1.05)
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(axis_label(x_name, content), fontsize=11)
    axes.set_ylabel(axis_label(y_name, content), fontsize=11)
    title = f"{content['sweep']}: {len(content['points'])} trials"
    if plays(content):
        title += f", {content['episodes']} episodes"
    axes.set_title(title, fontsize=13, loc="left", fontweight="bold")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_staircase(
    axes: Any,
    objectives: Sequence[Mapping[str, str]],
    front: list[_Point],
    names: tuple[str, str],
) -> None:
    x_name, y_name = names
    directions = {o["name"]: o["direction"] for o in objectives}
    xs, ys = [p[x_name] for p in front], [p[y_name] for p in front]
    if directions.get(x_name, "minimize") == "minimize":
        xs, ys, where = [*xs, axes.get_xlim()[1]], [*ys, ys[-1]], "post"
    else:
        xs, ys, where = [axes.get_xlim()[0], *xs], [ys[0], *ys], "pre"
    limits = axes.get_xlim()
    axes.step(xs, ys, where=where, color=FRONT_COLOUR, linewidth=1.8, alpha=0.8, zorder=4)
    axes.set_xlim(limits)


def _draw_labels(figure: Any, axes: Any, drawn: list[_Point], names: tuple[str, str]) -> None:
    """Trial numbers beside their points, front first; one that finds no free place is left out."""
    figure.draw_without_rendering()  # fixes the layout, so that data → pixels holds
    area = axes.get_window_extent()
    wanted = [p for p in drawn if p["on_front"] or p["name"] or len(drawn) <= _LABEL_ALL_UP_TO]
    wanted.sort(key=lambda p: (not p["on_front"], not p["name"], p["trial"]))
    texts = [f"{p['trial']} {p['name']}" if p["name"] else str(p["trial"]) for p in wanted]
    pixel = figure.dpi / 72
    sizes = [((5.3 * len(text) + 5) * pixel, 10 * pixel) for text in texts]
    anchors = [tuple(axes.transData.transform((p[names[0]], p[names[1]]))) for p in wanted]
    everyone = axes.transData.transform([(p[names[0]], p[names[1]]) for p in drawn] or [(0, 0)])
    places = place_labels(
        anchors,
        sizes,
        marks=[(float(x), float(y)) for x, y in everyone],
        gap=6 * pixel,
        area=Box(area.x0, area.y0, area.x1, area.y1),
    )
    for point, text, place in zip(wanted, texts, places, strict=True):
        if place is None:
            continue
        x, y = axes.transData.inverted().transform((place.x0, place.y0))
        axes.text(
            x,
            y,
            text,
            fontsize=8.5,
            va="bottom",
            ha="left",
            color=style(point)[1] if point["on_front"] else "#555555",
            fontweight="bold" if point["on_front"] else "normal",
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
