"""The frame of the report's page: its looks and script from package data, and its tables."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

Cell = tuple[str, Any]  # what is shown, what it sorts by

STYLE = "report.css"
SCRIPTS = (
    "svg.js",
    "filters.js",
    "plot.js",
    "chart.js",
    "bits.js",
    "panel.js",
    "tables.js",
    "report.js",
)


class Column(NamedTuple):
    """The heading of a column."""

    name: str
    secondary: bool = False  # left out on narrow screens


class Row(NamedTuple):
    """A row of a table."""

    cells: Sequence[Cell]
    css: str = ""
    trial: int | None = None  # that the script opens and filters; its number is the first cell


def document(title: str, body: str, data: Any) -> str:
    """A whole page. It may run its own script, show videos beside it, and load nothing else.

    Args:
        title: Plain text.
        body: HTML, everything in it escaped.
        data: What the script reads, as JSON.
    """
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset(STYLE)}</style></head>\n<body>\n"
        f'{body}\n<script type="application/json" id="data">{_embedded(data)}</script>\n'
        f"<script>{script}</script>\n</body></html>\n"
    )


def _embedded(data: Any) -> str:
    """JSON that cannot end the element which it stands in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@cache
def _script() -> str:
    return '"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS)


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def section(title: str, html: str, name: str = "") -> str:
    """A part of the page under a heading; empty where there is nothing to show."""
    anchor = f' id="{name}"' if name else ""
    return f"<section{anchor}><h2>{escape(title)}</h2>\n{html}</section>" if html else ""


def sortable_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A table that the script makes sortable."""
    return _table(columns, rows, "sortable")


def heat_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A table whose cells with a number from 0 to 1 are coloured by it."""
    return _table(columns, rows, "heat")


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A sortable table of texts."""
    columns = [Column(name) for name in header]
    return sortable_table(columns, [Row([(text, text) for text in row]) for row in rows])


def _table(columns: Sequence[Column], rows: Sequence[Row], kind: str) -> str:
    if not rows:
        return ""
    css = [_column_css(column, [row.cells[i] for row in rows]) for i, column in enumerate(columns)]
    if rows[0].trial is not None:
        css[0] = ["trial"]
    head = "".join(
        f'<th scope="col"{_css(c)}>{escape(column.name)}</th>'
        for c, column in zip(css, columns, strict=True)
    )
    body = "".join(_row(row, css, kind) for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _column_css(column: Column, cells: Sequence[Cell]) -> list[str]:
    css = ["secondary"] if column.secondary else []
    if any(isinstance(by, (int, float)) and not isinstance(by, bool) for _shown, by in cells):
        return [*css, "number"]
    return [*css, "long"] if any(len(shown) > 40 for shown, _by in cells) else css


def _row(row: Row, css: Sequence[Sequence[str]], kind: str) -> str:
    trial = "" if row.trial is None else f' data-trial="{row.trial}"'
    heats = kind == "heat"
    cells = "".join(_cell(cell, c, heats) for cell, c in zip(row.cells, css, strict=True))
    return f"<tr{_css([row.css] if row.css else [])}{trial}>{cells}</tr>\n"


def _cell(cell: Cell, css: Sequence[str], heats: bool) -> str:
    shown, by = cell
    if heats and isinstance(by, float):
        return f'<td class="heat" style="--rate:{by:.3f}">{escape(shown)}</td>'
    sort = "" if by is None or by == shown else f' data-sort="{escape(str(by))}"'
    return f"<td{_css(css)}{sort}>{escape(shown)}</td>"


def _css(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""
