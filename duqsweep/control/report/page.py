"""`report.html`: one file that needs no network, no server and, but for sorting, no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import yaml

from duqsweep.control.front.formats import NONE, number, probability
from duqsweep.control.front.measures import (
    CALL_MS,
    EPISODE_TIME_S,
    MEASURES,
    SPEEDUP,
    SUCCESS_RATE,
    Measure,
)
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.report.tasks import categories_table, tasks_table
from duqsweep.control.report.webpage import SCRIPT, STYLE, Cell, sortable_table
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view import tables, wording
from duqsweep.control.view.claims import HEADER as CLAIMS_HEADER
from duqsweep.control.view.claims import compare_claims
from duqsweep.control.view.evidence import HEADER, NOTE, evidence
from duqsweep.control.view.headline import answer_line, headline, importance_line, verdict_line
from duqsweep.control.view.simulation import simulator_line, warnings

# What leads a row; the other measures that some trial has follow the settings.
_LEADING = (SUCCESS_RATE, EPISODE_TIME_S, CALL_MS, SPEEDUP)
_INTERVAL = "95 %"
_P_FRONT = "p(front)"


def report_page(
    front: Front, views: Sequence[TrialView], sweep_yaml: str, svg: str, videos: Sequence[str] = ()
) -> str:
    """The page as text.

    Args:
        front: Of the sweep.
        views: The sweep's trials, for the success of each task and the machine.
        sweep_yaml: The resolved configuration, shown as it is.
        svg: The picture, see `picture.draw_svg`.
        videos: Paths of videos of episodes, relative to the page.
    """
    joined = len(front.objectives) == 2
    best = "The line joins the trials" if joined else "Those on the front are the trials"
    body = [
        f"<h1>{escape(front.sweep)}</h1>",
        f'<p class="counts">{escape(wording.counts_line(front))}</p>',
        f'<p class="headline">{escape(headline(front))}</p>',
        *(
            f'<p class="verdict">{escape(said)}</p>'
            for said in (verdict_line(front), answer_line(front), importance_line(front))
            if said
        ),
        *(f'<p class="warning">{escape(w)}</p>' for w in warnings(front.simulator)),
        f"<figure>{svg}<figcaption>Each mark is a trial; rest the pointer on one for its settings. "
        f"{best} that no other beats. A trial without an episode or a timing "
        "has no place here; the table below has all.</figcaption></figure>",
        _section("The front", _trials_table(front.members, front)),
        _section("What is known of their success", _evidence(front)),
        _section("The document's claims, and what was measured", _claims(front)),
        _section("Success by category, on the front", categories_table(front)),
        _section("Success of each task, on the front", tasks_table(front, views)),
        _section("Episodes to watch", _videos(videos)),
        _section("Every trial", _trials_table(front.points, front)),
        _section("Not run to the end", _unfinished(front)),
        _section("How to read this", _glossary(front)),
        _section("What was searched", _searched(sweep_yaml)),
        _section("Where it ran", _simulator(front) + _machines(views)),
    ]
    title = f"{escape(front.sweep)} · duqsweep"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{SCRIPT}</script>\n</body></html>\n"
    )


def _searched(sweep_yaml: str) -> str:
    """The space and its surroundings, then the whole configuration, folded."""
    config = yaml.safe_load(sweep_yaml) or {}
    space = [
        ("", [(key, key), (str(values), str(values)), (when, when)])
        for key, values in config.get("space", {}).items()
        for when in [config.get("when", {}).get(key, "")]
    ]
    groups = (name for name in ("policy", "suite", "sampler", "launcher") if name in config)
    facts = [f"{name} {config[name].get('name')}" for name in groups]
    facts += [f"{key} {value}" for key, value in config.get("budget", {}).items()]
    around = f"<p>{escape(' · '.join(facts))}</p>" if facts else ""
    whole = f"<details><summary>sweep.yaml</summary><pre>{escape(sweep_yaml)}</pre></details>"
    return sortable_table(["key", "values", "only when"], space) + around + whole


def _section(title: str, html: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{html}" if html else ""


def _videos(paths: Sequence[str]) -> str:
    """A player for each video; nothing is loaded before it is started."""
    players = (
        f'<figure class="video"><video controls preload="none" src="{quote(path)}"></video>'
        f"<figcaption>{escape(PurePosixPath(path).stem.replace('_', ' '))}</figcaption></figure>"
        for path in paths
    )
    return "\n".join(players)


def _trials_table(points: Sequence[FrontPoint], front: Front) -> str:
    params = [wording.telling_params(point.params, front) for point in points]
    leading, others = _measures(front)
    taken = {"kernel", *(measure.column for measure in others)}
    names = sorted({name for values in params for name in values} - taken)
    header = ["trial", "name"]
    for measure in leading:
        header += [measure.column, *([_INTERVAL] if measure is SUCCESS_RATE else [])]
    header += [_P_FRONT] if front.plays else []
    header += [*names, "kernel", *(measure.column for measure in others)]
    header += ["episodes"] if front.plays else []
    rows = []
    for point, values in zip(points, params, strict=True):
        cells = _results(point, leading, front.plays)
        cells += [(_shown(values.get(name)), values.get(name)) for name in names]
        cells.append((point.kernel or NONE, point.kernel))
        cells += [(point.text(measure), point.value(measure)) for measure in others]
        episodes = point.success.counts.episodes
        cells += [(str(episodes), episodes)] if front.plays else []
        rows.append(("front" if point.on_front else "", cells))
    return sortable_table(header, rows)


def _measures(front: Front) -> tuple[list[Measure], list[Measure]]:
    """The measures that lead a row, and those of the others that some trial has."""
    leading = [m for m in _LEADING if front.plays or m not in (SUCCESS_RATE, EPISODE_TIME_S)]
    others = [measure for measure in MEASURES.values() if measure not in _LEADING]
    return leading, [m for m in others if any(p.value(m) is not None for p in front.points)]


def _results(point: FrontPoint, leading: Sequence[Measure], plays: bool) -> list[Cell]:
    cells: list[Cell] = [(str(point.trial), point.trial), (point.name or "", point.name or "")]
    for measure in leading:
        cells.append((point.text(measure), point.value(measure)))
        if measure is SUCCESS_RATE:
            cells.append((wording.interval(point.success), point.success.success_low))
    return [*cells, *([(probability(point.p_front), point.p_front)] if plays else [])]


def _unfinished(front: Front) -> str:
    rows: list[tuple[str, list[Cell]]] = []
    for point in front.points:
        if point.outcome != "complete":
            why = wording.cause(point.error_type, point.reason)
            texts = (point.outcome, why, wording.telling_settings(point.params, front))
            trial: Cell = (wording.point_label(point), point.trial)
            rows.append(("", [trial, *((text, text) for text in texts)]))
    return sortable_table(["trial", "outcome", "reason", "settings"], rows)


def _shown(value: Any) -> str:
    return "" if value is None else number(value)


def _evidence(front: Front) -> str:
    rows = [("", [(text, text) for text in row]) for row in evidence(front)]
    note = f'<p class="note">{escape(NOTE)}</p>' if rows else ""
    return sortable_table(HEADER, rows) + note


def _claims(front: Front) -> str:
    rows = compare_claims(front)
    if not rows:
        return ""
    note = (
        "The document expects these for pi0.5 on its author's GPU; the measured columns are this "
        "sweep's policy and machine, so ratios compare, seconds do not. Loss is in percentage "
        "points; ± is the 95 % noise of that many episodes."
    )
    cells = [("", [(text, text) for text in row]) for row in rows]
    return sortable_table(CLAIMS_HEADER, cells) + f'<p class="note">{escape(note)}</p>'


def _glossary(front: Front) -> str:
    leading, others = _measures(front)
    explained = [(m.column, m.explanation) for m in (*leading, *others) if m.explanation]
    if front.plays:
        text = "the probability of being on the front, given the episodes that the trials share."
        explained.append((_P_FRONT, text))
    worst = "success 0 and " if front.plays else ""
    explained.append(
        (
            "hypervolume",
            f"{front.hypervolume:.4g}: what the front covers, counted from {worst}1.5 × the "
            "reference's time (for other objectives 1.5 × the worst value).",
        )
    )
    kernels = (line.partition(": ") for line in tables.kernel_notes(front))
    explained += [(name, text) for name, _, text in kernels]
    entries = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in explained)
    return f"<dl>{''.join(entries)}</dl>"


def _simulator(front: Front) -> str:
    line = simulator_line(front.simulator)
    return f"<p>{escape(line)}</p>" if line else ""


def _machines(views: Sequence[TrialView]) -> str:
    seen: dict[str, list[int]] = {}
    for view in views:
        if view.vitals:
            facts = {**view.vitals.hardware, **view.vitals.versions, "git": view.vitals.git}
            text = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
            seen.setdefault(text, []).append(view.number)
    lines = (f"<li>{escape(text)} ({len(trials)} trials)</li>" for text, trials in seen.items())
    return f"<ul>{''.join(lines)}</ul>" if seen else ""
