"""The front as tables of a terminal, shared by the live view and the final one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from duqsweep.control import wording
from duqsweep.control.claims import HEADER, compare_claims

_Point = Mapping[str, Any]


def front_table(content: Mapping[str, Any], rows: int | None = None) -> Table:
    """The trials on the front, best success first; the first `rows` of them."""
    extra = [
        o["name"]
        for o in content["objectives"]
        if o["name"] not in ("success_rate", "episode_time_s")
    ]
    columns = [
        "trial",
        "success",
        "95 %",
        "episodes",
        "time",
        "speed-up",
        "kernel",
        *extra,
        "p",
        "settings",
    ]
    table = Table(title=f"front of {content['sweep']}", title_justify="left", title_style="bold")
    for name in columns:
        left = name in ("kernel", "settings", "trial")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for point in wording.front_points(content)[:rows]:
        table.add_row(*_front_row(point, extra), _settings(point, content))
    return table


def _front_row(point: _Point, extra: Sequence[str]) -> list[str]:
    return [
        wording.label(point),
        wording.percent(point["success_rate"]),
        wording.interval(point),
        str(point["episodes"]),
        wording.seconds(point["episode_time_s"]),
        wording.ratio(point["speedup"]),
        point["kernel"] or wording.NONE,
        *(wording.number(point[name]) for name in extra),
        wording.probability(point["p_front"]),
    ]


def failures_table(content: Mapping[str, Any]) -> Table | None:
    """Trials that failed, with their reason; None when there is none."""
    failed = [point for point in content["points"] if point["outcome"] == "failed"]
    if not failed:
        return None
    table = Table(
        "trial", "reason", "settings", title="failed", title_justify="left", title_style="bold"
    )
    for point in failed:
        table.add_row(wording.label(point), wording.why(point), _settings(point, content))
    return table


def _settings(point: _Point, content: Mapping[str, Any]) -> str:
    return wording.settings(wording.telling_params(point, content))


def claims_table(content: Mapping[str, Any]) -> Table | None:
    """The seed's claims beside what was measured; None unless the sweep ran the seed's plans."""
    return _plain(HEADER, compare_claims(content), "the document's table, and what was measured")


def _plain(header: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> Table | None:
    rows = list(rows)
    if not rows:
        return None
    table = Table(*header, title=title, title_justify="left", title_style="bold")
    for row in rows:
        table.add_row(*row)
    return table


def notes(content: Mapping[str, Any]) -> list[str]:
    """What one must know to read the tables."""
    reference = content["reference"]
    lines = [
        "success: with its 95 % interval (Wilson); p: the probability of being on the front",
        "time: policy time of an episode of nominal length; speed-up: over the eager reference"
        + (f" ({wording.seconds(reference['episode_time_s'])})" if reference else ""),
    ]
    kernels = {point["kernel"] for point in content["points"]}
    if "fake" in kernels:
        lines.append(f"kernel fake: {wording.SIMULATED}")
    if "loop" in kernels:
        lines.append("kernel loop: one small product a rotation block, kept as the slow baseline")
    return lines
