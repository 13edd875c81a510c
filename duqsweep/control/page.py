"""`report.html`: one file that needs no network, no server and, but for sorting, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from duqsweep.control import tables, wording
from duqsweep.control.claims import HEADER, compare_claims
from duqsweep.control.headline import headline
from duqsweep.control.trials import TrialView

_Point = Mapping[str, Any]
_Cell = tuple[str, Any]  # what is shown, what it sorts by

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: #1c2329;
  background: #fff; max-width: 1200px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p.counts { color: #5a6570; margin: .2rem 0 1rem; }
p.headline { background: #eef5fb; border-left: 4px solid #0072B2; padding: .7rem 1rem; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
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

_SCRIPT = """
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


def report_page(
    content: Mapping[str, Any], views: Sequence[TrialView], sweep_yaml: str, svg: str
) -> str:
    """The page as text.

    Args:
        content: `front.json`'s content.
        views: The sweep's trials, for the success of each task and the machine.
        sweep_yaml: The resolved configuration, shown as it is.
        svg: The picture, see `picture.draw_svg`.
    """
    body = [
        f"<h1>{escape(content['sweep'])}</h1>",
        f'<p class="counts">{escape(wording.counts_line(content))}</p>',
        f'<p class="headline">{escape(headline(content))}</p>',
        f"<figure>{svg}<figcaption>Each mark is a trial; rest the pointer on one for its settings. "
        "The line joins the trials that no other beats. A trial without an episode or a timing "
        "has no place here; the table below has all.</figcaption></figure>",
        _section("The front", _trials_table(wording.front_points(content), content)),
        _section("The document's claims, and what was measured", _claims(content)),
        _section("Success of each task, on the front", _tasks_table(content, views)),
        _section("Every trial", _trials_table(content["points"], content)),
        _section("How to read this", _glossary(content)),
        _section("What was searched", f"<pre>{escape(sweep_yaml)}</pre>" if sweep_yaml else ""),
        _section("Where it ran", _machines(views)),
    ]
    title = f"{escape(content['sweep'])} · duqsweep"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def _section(title: str, html: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{html}" if html else ""


def _table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[_Cell]]]) -> str:
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


def _column_css(cells: Sequence[_Cell]) -> str:
    if any(isinstance(by, (int, float)) and not isinstance(by, bool) for _shown, by in cells):
        return ' class="number"'
    return ' class="long"' if any(len(shown) > 40 for shown, _by in cells) else ""


def _cell(cell: _Cell, css: str) -> str:
    shown, by = cell
    return f'<td{css} data-sort="{escape("" if by is None else str(by))}">{escape(shown)}</td>'


def _trials_table(points: Sequence[_Point], content: Mapping[str, Any]) -> str:
    params = [wording.telling_params(point, content) for point in points]
    names = sorted({name for values in params for name in values})
    reasons = any(point["outcome"] != "complete" for point in points)
    header = [
        *("trial", "name", "success", "95 %", "time", "speed-up", "p(front)"),
        *names,
        *("kernel", "weights [MB]", "mean bits", "action error", "episodes"),
        *(["outcome", "reason"] if reasons else []),
    ]
    rows = []
    for point, values in zip(points, params, strict=True):
        cells = [*_results(point), *((_shown(values.get(n)), values.get(n)) for n in names)]
        cells += _facts(point)
        if reasons:
            why = point["reason"] if point["outcome"] != "complete" else ""
            cells += [(point["outcome"], point["outcome"]), (why, why)]
        rows.append(("front" if point["on_front"] else "", cells))
    return _table(header, rows)


def _shown(value: Any) -> str:
    return "" if value is None else wording.number(value)


def _results(point: _Point) -> list[_Cell]:
    return [
        (str(point["trial"]), point["trial"]),
        (point["name"] or "", point["name"] or ""),
        (wording.percent(point["success_rate"]), point["success_rate"]),
        (wording.interval(point), point["success_low"]),
        (wording.seconds(point["episode_time_s"]), point["episode_time_s"]),
        (wording.ratio(point["speedup"]), point["speedup"]),
        (wording.probability(point["p_front"]), point["p_front"]),
    ]


def _facts(point: _Point) -> list[_Cell]:
    names = ("weights_mb", "mean_weight_bits", "action_error", "episodes")
    kernel = point["kernel"]
    return [
        (kernel or wording.NONE, kernel),
        *((wording.number(point[name]), point[name]) for name in names),
    ]


def _claims(content: Mapping[str, Any]) -> str:
    rows = compare_claims(content)
    if not rows:
        return ""
    note = (
        "The document expects these for pi0.5 on its author's GPU; the measured columns are this "
        "sweep's policy and machine, so ratios compare, seconds do not. Loss is in percentage "
        "points; ± is the 95 % noise of that many episodes."
    )
    cells = [("", [(text, text) for text in row]) for row in rows]
    return _table(HEADER, cells) + f'<p class="note">{escape(note)}</p>'


def _tasks_table(content: Mapping[str, Any], views: Sequence[TrialView]) -> str:
    by_number = {view.number: view for view in views}
    rows: list[tuple[str, Sequence[_Cell]]] = []
    tasks = sorted({e.task for view in views for e in view.episodes})
    for point in wording.front_points(content):
        view = by_number[point["trial"]]
        cells: list[_Cell] = [(wording.label(point), point["trial"])]
        for task in tasks:
            ran = [e.success for e in view.episodes if e.task == task and e.error is None]
            shown = f"{sum(ran)} of {len(ran)}" if ran else wording.NONE
            cells.append((shown, sum(ran) / len(ran) if ran else None))
        rows.append(("", cells))
    return _table(["trial", *(f"task {task}" for task in tasks)], rows)


def _glossary(content: Mapping[str, Any]) -> str:
    kernels = (line.partition(": ") for line in tables.notes(content) if line.startswith("kernel"))
    entries = [
        (
            "success",
            "successes over successes and failures; an episode that broke down counts as "
            "neither. 95 % is Wilson's interval.",
        ),
        (
            "time",
            "policy calls of an episode of nominal length × median latency of a call, batch 1, "
            "device synchronised, warm-up and compilation apart. Each trial times the unquantized "
            "policy on its own node too, and the ratio of the two enters, so that unlike nodes compare.",
        ),
        (
            "speed-up",
            "latency of the unquantized, eager policy over the trial's, on the same node.",
        ),
        (
            "p(front)",
            "the probability of being on the front, given the episodes that the trials share.",
        ),
        (
            "action error",
            "root mean square difference to the unquantized policy's normalised actions "
            "under the same noise, on fixed observations.",
        ),
        (
            "hypervolume",
            f"{content['hypervolume']:.4g}: what the front covers, counted from success 0 "
            "and 1.5 × the reference's time (for other objectives 1.5 × the worst value).",
        ),
    ]
    entries += [(name, text) for name, _, text in kernels]
    return (
        "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in entries) + "</dl>"
    )


def _machines(views: Sequence[TrialView]) -> str:
    seen: dict[str, list[int]] = {}
    for view in views:
        if view.vitals:
            facts = {**view.vitals.hardware, **view.vitals.versions, "git": view.vitals.git}
            text = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
            seen.setdefault(text, []).append(view.number)
    lines = (f"<li>{escape(text)} ({len(trials)} trials)</li>" for text, trials in seen.items())
    return f"<ul>{''.join(lines)}</ul>" if seen else ""
