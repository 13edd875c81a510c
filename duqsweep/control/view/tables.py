"""The front as tables of a terminal, shared by the live view and the final one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from duqsweep.categories import named_category
from duqsweep.control.view import wording
from duqsweep.control.view.claims import HEADER, compare_claims
from duqsweep.control.view.simulation import simulator_line

_Point = Mapping[str, Any]
_KERNELS = {
    "fake": wording.SIMULATED,
    "loop": "one small product a rotation block, kept as the slow baseline",
    "int8": "products of 8-bit integers on the GPU; counted while they ran",
    "w4a8": "8-bit inputs times weights of 4 bits, two in a byte; wider weights as int8; counted "
    "while they ran",
}


def new_table(title: str, numbers: Sequence[str], texts: Sequence[str]) -> Table:
    """An empty table that stays readable at 80 columns: numbers keep one line, texts wrap.

    Args:
        title: Stands above it, on the left.
        numbers: Headings of the columns that come first; the first of them is a label.
        texts: Headings of the columns that follow.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for i, name in enumerate(numbers):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for name in texts:
        table.add_column(name, overflow="fold", min_width=20)
    return table


def front_table(content: Mapping[str, Any], rows: int | None = None) -> Table:
    """The trials on the front, best success first, then fastest; the first `rows` of them."""
    plays = wording.plays(content)
    told = ("success_rate", "episode_time_s", "call_ms")
    extra = [o["name"] for o in content["objectives"] if o["name"] not in told]
    headings = [named_category(name) or name for name in extra]
    points = wording.front_points(content)[:rows]
    kernels = ["kernel"] if len({point["kernel"] for point in points}) > 1 else []
    results = ["success (95 %)", "of", "time", "speed-up", "p"] if plays else ["call", "speed-up"]
    table = new_table(
        f"front of {content['sweep']}", ["trial", *results, *headings, *kernels], ["settings"]
    )
    for point in points:
        table.add_row(
            wording.label(point),
            *(_played(point) if plays else _timed(point)),
            *(wording.measured(name, point[name]) for name in extra),
            *(point[name] or wording.NONE for name in kernels),
            telling_settings(point, content),
        )
    return table


def categories_table(
    points: Sequence[_Point], title: str = "success by category, in % (95 % interval)"
) -> Table | None:
    """A row per point, a column per category; None where the suite has no categories."""
    names = wording.categories(points)
    if not names:
        return None
    table = new_table(title, ["trial", *names], [])
    for point in points:
        cells = (wording.category_cell(point, name) for name in names)
        table.add_row(wording.label(point), *cells)
    return table


def _played(point: _Point) -> list[str]:
    return [
        f"{wording.percent(point['success_rate'])} ({wording.interval(point)})",
        str(point["episodes"]),
        wording.seconds(point["episode_time_s"]),
        wording.ratio(point["speedup"]),
        wording.probability(point["p_front"]),
    ]


def _timed(point: _Point) -> list[str]:
    return [wording.milliseconds(point["call_ms"]), wording.ratio(point["speedup"])]


def failures_table(content: Mapping[str, Any]) -> Table | None:
    """Trials that failed, with their reason; None when there is none."""
    failed = [point for point in content["points"] if point["outcome"] == "failed"]
    if not failed:
        return None
    table = new_table("failed", ["trial"], ["reason", "settings"])
    for point in failed:
        table.add_row(wording.label(point), wording.why(point), telling_settings(point, content))
    return table


def telling_settings(point: _Point, content: Mapping[str, Any]) -> str:
    """The parameters of a point that differ between trials of the sweep, in one line."""
    return wording.settings(wording.telling_params(point, content))


def claims_table(content: Mapping[str, Any]) -> Table | None:
    """The seed's claims beside what was measured; None unless the sweep ran the seed's plans."""
    rows = compare_claims(content)
    if not rows:
        return None
    title = "the document's claims (for pi0.5 on a GPU), and what was measured"
    table = new_table(title, [], [])
    shown = [i for i, name in enumerate(HEADER) if name != "what it is"]
    for i in shown:
        table.add_column(HEADER[i], justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    return table


def notes(content: Mapping[str, Any]) -> list[str]:
    """What one must know to read the tables."""
    reference = content["reference"]
    if wording.plays(content):
        lines = [
            "success: with its 95 % interval (Wilson), of so many episodes",
            "p: the probability of being on the front",
            "time: policy time of an episode of nominal length; "
            "speed-up: of a call, over the eager reference"
            + (f" ({wording.seconds(reference['episode_time_s'])})" if reference else ""),
        ]
    else:
        lines = [
            "call: median time of a policy call; speed-up: over the eager, unquantized reference"
            + (f" ({wording.milliseconds(reference['call_ms'])})" if reference else ""),
            "action_error: normalised RMSE to the reference's actions on recorded observations",
        ]
    if any(objective["name"] == "modelled_time_s" for objective in content["objectives"]):
        lines.append(
            "modelled_time_s: not measured; an episode's seconds if each layer kept to the limits "
            "of an H200 at these bits"
        )
    played_by = simulator_line(content["simulator"])
    lines += [played_by] if played_by else []
    kernels = {point["kernel"] for point in content["points"]}
    return lines + [f"kernel {name}: {text}" for name, text in _KERNELS.items() if name in kernels]
