"""The front as tables of a terminal, shared by the live view and the final one."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

from duqsweep.categories import named_category
from duqsweep.control.front import formats
from duqsweep.control.front.measures import (
    CALL_MS,
    EPISODE_TIME_S,
    SPEEDUP,
    SUCCESS_RATE,
    Measure,
)
from duqsweep.control.front.records import Front
from duqsweep.control.view import evidence, wording
from duqsweep.control.view.claims import HEADER, compare_claims
from duqsweep.control.view.simulation import simulator_line

EPISODE_COLUMN = "episode ×"
LEAST_TEXT = 20  # columns of a text beside numbers
_UNBOUNDED = 10_000  # columns; a measurement is cut to those that there are
_KERNELS = {
    "fake": wording.SIMULATED,
    "loop": "one small product per rotation block, kept as the slow baseline",
    "int8": "products of 8-bit integers on the GPU; counted while they ran",
    "w4a8": "8-bit inputs times weights of 4 bits, two in a byte; wider weights as int8; counted "
    "while they ran",
    "fp8": "products of 8-bit floats (e4m3), on a CPU exact and slow; counted while they ran",
}


class LabelledPoint(wording.CategoryPoint, Protocol):
    """A trial with its success by category, its number and its name."""

    @property
    def trial(self) -> int:
        """The trial's number."""

    @property
    def name(self) -> str | None:
        """Of the plan that it is."""


def new_table(title: str, numbers: Sequence[str], texts: Sequence[str]) -> Table:
    """An empty table that stays readable at 80 columns: numbers keep one line, texts wrap.

    Args:
        title: Stands above it, on the left.
        numbers: Headings of the first columns; the first of them is a label.
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
        table.add_column(name, overflow="fold", min_width=LEAST_TEXT)
    return table


@dataclass(frozen=True)
class WithSettings:
    """A table whose last column are the trials' settings; below it where the screen is narrow."""

    wide: Table
    beside: Table  # without that column, to measure the others
    narrow: Table  # without that column and the words that stand below too
    settings: Table  # for below

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=_UNBOUNDED)
        used = Measurement.get(console, unbounded, self.beside).maximum
        if used + LEAST_TEXT < options.max_width:
            yield self.wide
        else:
            yield self.narrow
            yield ""
            yield self.settings


def with_settings(
    title: str,
    numbers: Sequence[str],
    rows: Sequence[tuple[Sequence[str], Mapping[str, str], str]],
) -> WithSettings:
    """Rows of numbers, the first of which is a label, each with its settings.

    Args:
        title: Stands above the table.
        numbers: Headings.
        rows: Cells of a row; name → word of what may stand among the settings too, the same names
            in each row; and settings in one line.
    """
    words = list(rows[0][1]) if rows else []
    wide = new_table(title, [*numbers, *words], ["settings"])
    beside = new_table(title, [*numbers, *words], [])
    narrow = new_table(title, numbers, [])
    below = new_table("", numbers[:1], ["settings"])
    for cells, named, settings in rows:
        wide.add_row(*cells, *named.values(), settings)
        beside.add_row(*cells, *named.values())
        narrow.add_row(*cells)
        below.add_row(cells[0], " ".join([*(f"{k}={v}" for k, v in named.items()), settings]))
    return WithSettings(wide, beside, narrow, below)


def columns(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[str] = (),
    settings: Sequence[str] = (),
    width: int = LEAST_TEXT,
) -> str:
    """A plain table of any length; rich takes a second for a thousand rows.

    Args:
        headings: Of the columns.
        rows: Cells of one line each.
        left: Headings of the columns that are aligned to the left.
        settings: One text per row, a last column; where that is wider than the screen each stands
            below its row.
        width: Of the screen, in columns.
    """
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    aligned = [str.ljust if heading in left else str.rjust for heading in headings]

    def line(cells: Sequence[str]) -> str:
        padded = zip(aligned, cells, widths, strict=True)
        return "  ".join(align(cell, width) for align, cell, width in padded).rstrip()

    used = sum(widths) + 2 * (len(widths) - 1)
    lines = [line(headings), "─" * used, *map(line, rows)]
    if not any(settings):
        return "\n".join(lines)
    if used + 2 + max(map(len, settings)) <= width:
        texts = ["settings", "─" * max(map(len, settings)), *settings]
        return "\n".join(
            f"{start:<{used}}  {text}" for start, text in zip(lines, texts, strict=True)
        )
    indent = " " * (widths[0] + 2)
    below = (
        textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
        for text in settings
    )
    pairs = zip(lines[2:], below, strict=True)
    return "\n".join([*lines[:2], *(part for pair in pairs for part in pair)])


def front_table(front: Front, rows: int | None = None) -> WithSettings:
    """The trials on the front, best success first, then fastest; the first `rows` of them."""
    measures = wording.shown_measures(front)
    headings = {measure.name: [measure.column] for measure in measures}
    if front.plays:
        headings[SUCCESS_RATE.name] = [f"{SUCCESS_RATE.column} (95 %)", "of"]
        headings[SPEEDUP.name] = [EPISODE_COLUMN, SPEEDUP.column, "p(front)"]
    kernels = len({point.kernel for point in front.members}) > 1
    numbers = ["trial", *(name for names in headings.values() for name in names)]
    lines = []
    for point in front.members[:rows]:
        cells = {measure.name: [point.text(measure)] for measure in measures}
        if front.plays:
            success = wording.success_cell(point.success)
            cells[SUCCESS_RATE.name] = [success, str(point.success.counts.episodes)]
            episode = formats.ratio(front.episode_speedup(point))
            cells[SPEEDUP.name].insert(0, episode)
            cells[SPEEDUP.name].append(formats.probability(point.p_front))
        texts = [wording.point_label(point), *(cell for texts in cells.values() for cell in texts)]
        named = {"kernel": point.kernel or formats.NONE} if kernels else {}
        lines.append((texts, named, wording.telling_settings(point.params, front)))
    return with_settings(f"front of {front.sweep}", numbers, lines)


def categories_table(
    points: Sequence[LabelledPoint], title: str = "success by category, in % (95 % interval)"
) -> Table | None:
    """A row per point, a column per category; None where the suite has no categories."""
    names = wording.categories(points)
    if not names:
        return None
    table = new_table(title, ["trial", *names], [])
    for point in points:
        cells = (wording.category_cell(point, name) for name in names)
        table.add_row(wording.label(point.trial, point.name), *cells)
    return table


def evidence_table(front: Front) -> Table | None:
    """Every interval of the front's points and their states; None where no episode was played."""
    rows = evidence.evidence(front)
    if not rows:
        return None
    table = new_table("what is known of their success", evidence.HEADER[:1], [])
    for name in evidence.HEADER[1:]:
        table.add_column(name, justify="right")  # wraps where the screen is narrow
    for row in rows:
        table.add_row(*row)
    return table


def failures_table(front: Front) -> Table | None:
    """Trials that failed, with their reason; None when there is none."""
    failed = [point for point in front.points if point.outcome == "failed"]
    if not failed:
        return None
    table = new_table("failed", ["trial"], ["reason", "settings"])
    for point in failed:
        table.add_row(
            wording.point_label(point),
            wording.cause(point.error_type, point.reason),
            wording.telling_settings(point.params, front),
        )
    return table


def claims_table(front: Front) -> Table | None:
    """The seed's claims beside what was measured; None unless the sweep ran the seed's plans."""
    rows = compare_claims(front)
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


def notes(front: Front) -> list[str]:
    """What one must know to read the tables."""
    measures = wording.shown_measures(front)
    always = {SUCCESS_RATE.name, EPISODE_TIME_S.name, SPEEDUP.name}
    if front.plays:
        lines = [
            "success: with its 95 % interval (Wilson), of so many episodes",
            "p(front): the probability of being on the front",
            f"time: policy time of an episode of nominal length; {EPISODE_COLUMN}: how many times "
            f"shorter than the reference's, the eager and unquantized policy's"
            f"{_at_reference(EPISODE_TIME_S, front)}; {SPEEDUP.column}: the same of one call",
            evidence.NOTE,
        ]
    else:
        always.add(CALL_MS.name)
        lines = [
            f"call: median time of a policy call; {SPEEDUP.column}: how many times shorter than "
            f"the reference's, the eager and unquantized policy's{_at_reference(CALL_MS, front)}",
        ]
    lines += [
        f"{measure.name}: {measure.explanation}"
        for measure in measures
        if measure.name not in always and measure.explanation and not named_category(measure.name)
    ]
    played_by = simulator_line(front.simulator)
    lines += [played_by] if played_by else []
    return lines + kernel_notes(front)


def kernel_notes(front: Front) -> list[str]:
    """A line per kernel that ran: what it means for times."""
    kernels = {point.kernel for point in front.points}
    return [f"kernel {name}: {text}" for name, text in _KERNELS.items() if name in kernels]


def _at_reference(measure: Measure, front: Front) -> str:
    value = front.reference.value(measure) if front.reference else None
    return "" if value is None else f" ({measure.text(value)})"
