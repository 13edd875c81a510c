"""How a trial looks in the picture of a front, and the legend that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duqsweep.categories import is_success_rate
from duqsweep.control.front.measures import Measure
from duqsweep.control.front.records import FrontPoint

# Okabe and Ito's palette: distinct with every common colour blindness, and in print.
FRONT_COLOUR = "#0072B2"
FAILED_COLOUR = "#D55E00"
OTHER_COLOUR = "#8C8C8C"
REFERENCE_COLOUR = "#000000"


def style(point: FrontPoint) -> tuple[str, str, float]:
    """Marker, colour and size of a trial."""
    if point.outcome == "failed":
        return "x", FAILED_COLOUR, 7
    colour = FRONT_COLOUR if point.on_front else OTHER_COLOUR
    if point.name == "reference":
        return "D", FRONT_COLOUR if point.on_front else REFERENCE_COLOUR, 8
    return ("s" if point.name else "o"), colour, 8 if point.on_front else 6


def draw_rug(axes: Any, positions: Sequence[float]) -> None:
    """Ticks on the lower edge: trials that were timed and given no episode."""
    if positions:
        axes.plot(
            positions,
            [0.0] * len(positions),
            transform=axes.get_xaxis_transform(),
            marker=2,  # a tick upwards
            markersize=9,
            color=OTHER_COLOUR,
            linestyle="none",
        )


def draw_point(axes: Any, point: FrontPoint, at: tuple[float, float], y_axis: Measure) -> None:
    """The mark of a trial; on the front with its interval, where the axis is a success rate."""
    marker, colour, size = style(point)
    x, y = at
    bounded = point.on_front and is_success_rate(y_axis.name)
    estimate = point.estimate(y_axis) if bounded else None
    if estimate is not None and estimate.success_low is not None:
        axes.vlines(
            x,
            estimate.success_low,
            estimate.success_high,
            color=colour,
            linewidth=1.6,
            alpha=0.75,
            zorder=3,
        )
    axes.plot(
        [x],
        [y],
        marker=marker,
        markersize=size,
        color=colour,
        markeredgecolor=colour if marker == "x" else "white",
        markeredgewidth=1.8 if marker == "x" else 0.8,
        linestyle="none",
        zorder=5 if point.on_front or point.name == "reference" else 2,
        gid=f"trial-{point.trial}",
    )


def draw_legend(
    axes: Any, drawn: Sequence[FrontPoint], timed_only: bool, y_axis: Measure, joined: bool
) -> None:
    """Explain the marks that occur; a line joins the front if `joined`."""
    from matplotlib.lines import Line2D

    named = [point for point in drawn if point.name not in (None, "reference")]
    beaten = [point for point in drawn if not point.on_front and not point.name]
    entries = [
        ("o", "-" if joined else "", FRONT_COLOUR, "on the front", True),
        ("o", "", OTHER_COLOUR, "beaten by another trial", beaten),
        ("s", "", OTHER_COLOUR, "named plan", named),
        ("D", "", REFERENCE_COLOUR, "reference", any(p.name == "reference" for p in drawn)),
        ("x", "", FAILED_COLOUR, "failed", any(p.outcome == "failed" for p in drawn)),
        (
            "|",
            "",
            OTHER_COLOUR,
            "95 % interval (Wilson)",
            is_success_rate(y_axis.name),
        ),
        (2, "", OTHER_COLOUR, "timed, no episode", timed_only),
    ]
    handles = [
        Line2D([], [], marker=marker, linestyle=line, color=colour, label=text)
        for marker, line, colour, text, occurs in entries
        if occurs
    ]
    axes.figure.legend(
        handles=handles, loc="outside lower center", ncols=7, fontsize=9, frameon=False
    )
