"""The looks of the report's page, and its tables that sort at a click."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

Cell = tuple[str, Any]  # what is shown, what it sorts by

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: #1c2329;
  background: #fff; max-width: 1200px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p.counts { color: #5a6570; margin: .2rem 0 1rem; }
p.headline { background: #eef5fb; border-left: 4px solid #0072B2; padding: .7rem 1rem; }
p.warning { background: #fdf3e1; border-left: 4px solid #D55E00; padding: .7rem 1rem; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
figure.video { display: inline-block; margin: 0.5rem; } figure.video video { width: 20rem; }
figcaption, p.note { color: #5a6570; font-size: .9rem; }
div.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .5rem; text-align: left; border-bottom: 1px solid #e3e7ea;
  white-space: nowrap; }
td.number, th.number { text-align: right; } td.long { white-space: normal; min-width: 14rem; }
th { border-bottom: 2px solid #b6bec5; } table.sortable th { cursor: pointer; }
th[aria-sort=ascending]::after { content: " ▲"; } th[aria-sort=descending]::after { content: " ▼"; }
tr.front td { background: #eef5fb; font-weight: 600; }
pre { background: #f5f6f7; padding: .8rem 1rem; overflow-x: auto; font-size: .82rem; }
dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0 0 0 1rem; }
"""

SCRIPT = """
document.querySelectorAll("table.sortable th").forEach(function (head) {
  head.addEventListener("click", function () {
    var table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    var up = head.getAttribute("aria-sort") !== "ascending";
    var value = function (row) { return row.cells[column].dataset.sort; };
    var rows = Array.from(body.rows).sort(function (a, b) {
      var x = value(a), y = value(b);
      if (x === "" || y === "") { return (x === "") - (y === ""); }
      var order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? order : -order;
    });
    rows.forEach(function (row) { body.appendChild(row); });
    table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
});
"""


def sortable_table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """A sortable table; each row has a CSS class and its cells."""
    if not rows:
        return ""
    css = [_column_css([cells[i] for _row_css, cells in rows]) for i in range(len(header))]
    head = "".join(f"<th{c}>{escape(name)}</th>" for c, name in zip(css, header, strict=True))
    body = ""
    for row_css, cells in rows:
        filled = "".join(_cell(cell, c) for cell, c in zip(cells, css, strict=True))
        body += f'<tr class="{row_css}">{filled}</tr>\n'
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _column_css(cells: Sequence[Cell]) -> str:
    if any(isinstance(by, (int, float)) and not isinstance(by, bool) for _shown, by in cells):
        return ' class="number"'
    return ' class="long"' if any(len(shown) > 40 for shown, _by in cells) else ""


def _cell(cell: Cell, css: str) -> str:
    shown, by = cell
    return f'<td{css} data-sort="{escape("" if by is None else str(by))}">{escape(shown)}</td>'
