"""`report.html`: one file that needs no network and no server, and says most without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import yaml

from duqsweep.control.front.formats import NONE, probability, ratio
from duqsweep.control.front.measures import (
    ACTION_ERROR,
    CALL_MS,
    EPISODE_TIME_S,
    MEASURES,
    SPEEDUP,
    SUCCESS_RATE,
    WEIGHTS_MB,
    Measure,
)
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.report.costs import episodes_line, growth_picture, settings_that_matter
from duqsweep.control.report.data import P_FRONT, report_data
from duqsweep.control.report.films import Film, films
from duqsweep.control.report.surroundings import Surroundings
from duqsweep.control.report.tasks import categories_table, tasks_table
from duqsweep.control.report.webpage import (
    Cell,
    Column,
    Row,
    document,
    plain_table,
    section,
    sortable_table,
)
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view import tables, wording
from duqsweep.control.view.claims import HEADER as CLAIMS_HEADER
from duqsweep.control.view.claims import compare_claims
from duqsweep.control.view.decomposition import HEADER as FACTORS
from duqsweep.control.view.decomposition import NOTE as NOTE_OF_FACTORS
from duqsweep.control.view.decomposition import decomposition, untimed_line
from duqsweep.control.view.evidence import HEADER, NOTE, evidence
from duqsweep.control.view.headline import answer_line, first_line
from duqsweep.control.view.simulation import simulator_line, warnings
from duqsweep.control.view.tables import EPISODE_COLUMN

# What a row shows; all that a trial has is in the panel that its number opens, and in front.csv.
_LEADING = (SUCCESS_RATE, EPISODE_TIME_S, CALL_MS, SPEEDUP)
_FOLLOWING = (WEIGHTS_MB, ACTION_ERROR)
_INTERVAL = "95 %"


def report_page(
    front: Front, views: Sequence[TrialView], svg: str, around: Surroundings | None = None
) -> str:
    """The page as text.

    Args:
        front: Of the sweep.
        views: The sweep's trials, for the success of each task and the machine.
        svg: The picture, see `picture.draw_svg`; the script draws one that answers in its place.
        around: What else is known.
    """
    around = around or Surroundings()
    config = yaml.safe_load(around.sweep_yaml) or {}
    shown = films(around.videos, views, around.instructions)
    joined = len(front.objectives) == 2
    best = "The line joins the trials" if joined else "Those on the front are the trials"
    lines = (first_line(front), answer_line(front))
    said = [text for text in lines if text]
    body = [
        f"<header><h1>{escape(front.sweep)}</h1>",
        *(f'<p class="verdict">{escape(text)}</p>' for text in said),
        f'<p class="counts">{escape(wording.counts_line(front))}</p>',
        *(f'<p class="warning">{escape(w)}</p>' for w in warnings(front.simulator)),
        f'</header>\n<main>\n<div id="explorer"></div><figure class="still">{svg}'
        f"<figcaption>Each mark is a trial. {best} that no other beats. A trial without an episode "
        "or a timing has no place here; the table below has all.</figcaption></figure>",
        section("The front", _trials_table(front.members, front)),
        section("What is known of their success", _evidence(front)),
        section("What made them fast", _decomposition(front, around.folder)),
        section("Success by category, on the front", categories_table(front)),
        section("Success of each task", tasks_table(front, views, around.instructions)),
        section("The document's claims, and what was measured", _claims(front)),
        section("Episodes to watch", _videos(shown)),
        section("What the search cost", _costs(front, views, config.get("budget", {}))),
        section("Every trial", _trials_table(front.points, front), "every-trial"),
        section("Not run to the end", _unfinished(front)),
        section("How to read this", _glossary(front)),
        section("What was searched", _searched(config, around.sweep_yaml)),
        section("Where it ran", _simulator(front) + _machines(views)),
        "</main>",
    ]
    data = report_data(front, views, around, shown)
    return document(f"{front.sweep} · duqsweep", "\n".join(filter(None, body)), data)


def _searched(config: Mapping[str, Any], sweep_yaml: str) -> str:
    """The space and its surroundings, then the whole configuration, folded."""
    when = config.get("when", {})
    space = [
        (key, str(values), str(when.get(key, "")))
        for key, values in config.get("space", {}).items()
    ]
    groups = (name for name in ("policy", "suite", "sampler", "launcher") if name in config)
    facts = [f"{name} {config[name].get('name')}" for name in groups]
    facts += [f"{key} {value}" for key, value in config.get("budget", {}).items()]
    around = f"<p>{escape(' · '.join(facts))}</p>" if facts else ""
    whole = f"<details><summary>sweep.yaml</summary><pre>{escape(sweep_yaml)}</pre></details>"
    return plain_table(["key", "values", "only when"], space) + around + whole


def _videos(shown: Sequence[Film]) -> str:
    """A player for each video; nothing is loaded before it is started."""
    players = (
        f'<figure class="video"><video controls preload="none" src="{quote(film.path)}"></video>'
        f"<figcaption>{escape(film.caption)}</figcaption></figure>"
        for film in shown
    )
    return "\n".join(players)


def _costs(front: Front, views: Sequence[TrialView], budget: Mapping[str, Any]) -> str:
    episodes = episodes_line(views, budget)
    left = f"<p>{escape(episodes)}</p>" if episodes else ""
    left += growth_picture(front, views)
    shares = settings_that_matter(front)
    right = f"<div><h3>Which settings matter</h3>{shares}</div>" if shares else ""
    return f'<div class="costs"><div>{left}</div>{right}</div>' if left or right else ""


def _trials_table(points: Sequence[FrontPoint], front: Front) -> str:
    leading, following = _measures(front)
    several = len({point.kernel for point in front.points}) > 1
    columns = [Column("trial")]
    for measure in leading:
        columns.append(Column(measure.column, secondary=measure is CALL_MS and front.plays))
        columns += [Column(_INTERVAL)] if measure is SUCCESS_RATE else []
        columns += [Column(EPISODE_COLUMN)] if measure is EPISODE_TIME_S else []
    columns += [Column(P_FRONT, secondary=True)] if front.plays else []
    columns += [Column("settings", secondary=True)]
    columns += [Column("kernel", secondary=True)] if several else []
    columns += [Column(measure.column, secondary=True) for measure in following]
    rows = []
    for point in points:
        cells = _results(point, leading, front)
        settings = wording.telling_settings(point.params, front)
        cells.append((settings, settings))
        cells += [(point.kernel or NONE, point.kernel)] if several else []
        cells += [(point.text(measure), point.value(measure)) for measure in following]
        rows.append(Row(cells, "front" if point.on_front else "", point.trial))
    return sortable_table(columns, rows)


def _measures(front: Front) -> tuple[list[Measure], list[Measure]]:
    """The measures that lead a row, and those that follow the settings; the objectives are there.

    Only such as some trial has.
    """
    leading = [m for m in _LEADING if front.plays or m not in (SUCCESS_RATE, EPISODE_TIME_S)]
    traded = {objective.name for objective in front.objectives}
    wanted = {*(measure.name for measure in _FOLLOWING), *traded}
    others = [m for name, m in MEASURES.items() if name in wanted and m not in _LEADING]
    return leading, [m for m in others if any(p.value(m) is not None for p in front.points)]


def _results(point: FrontPoint, leading: Sequence[Measure], front: Front) -> list[Cell]:
    cells: list[Cell] = [(wording.point_label(point), point.trial)]
    for measure in leading:
        if measure is SUCCESS_RATE:
            cells.append((wording.successes(point.success), point.value(measure)))
            cells.append((wording.interval(point.success), point.success.success_low))
        else:
            cells.append((point.text(measure), point.value(measure)))
        if measure is EPISODE_TIME_S:
            times = front.episode_speedup(point)
            cells.append((ratio(times), times))
    return [*cells, *([(probability(point.p_front), point.p_front)] if front.plays else [])]


def _unfinished(front: Front) -> str:
    """Trials that failed, then those that were stopped; many of the latter are folded."""
    failed = _reasons(front, "failed")
    stopped = _reasons(front, "stopped")
    if not stopped:
        return failed
    count = sum(point.outcome == "stopped" for point in front.points)
    summary = f"{count} stopped: no episode, or no more, was worth it"
    folded = "" if count > _FOLD_FROM else " open"
    return f"{failed}<details{folded}><summary>{summary}</summary>{stopped}</details>"


_FOLD_FROM = 20  # trials


def _reasons(front: Front, outcome: str) -> str:
    rows = []
    for point in front.points:
        if point.outcome == outcome:
            why = wording.cause(point.error_type, point.reason)
            texts = (point.outcome, why, wording.telling_settings(point.params, front))
            trial: Cell = (wording.point_label(point), point.trial)
            rows.append(Row([trial, *((text, text) for text in texts)], trial=point.trial))
    columns = [Column("trial"), Column("outcome"), Column("reason"), Column("settings", True)]
    return sortable_table(columns, rows)


def _evidence(front: Front) -> str:
    rows = evidence(front)
    note = f'<p class="note">{escape(NOTE)}</p>' if rows else ""
    return plain_table(HEADER, rows) + note


def _decomposition(front: Front, folder: str) -> str:
    """What each speed-up is made of, and the command that times what is missing for it."""
    rows = decomposition(front)
    notes = [NOTE_OF_FACTORS] if rows else []
    missing = untimed_line(front, folder)
    notes += [] if missing is None else [missing]
    shown = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return plain_table(FACTORS, rows) + shown


def _claims(front: Front) -> str:
    rows = compare_claims(front)
    if not rows:
        return ""
    note = (
        "The document expects these for pi0.5 on its author's GPU; the measured columns are this "
        "sweep's policy and machine, so ratios compare, seconds do not. Loss is in percentage "
        "points; ± is the 95 % noise of that many episodes."
    )
    return plain_table(CLAIMS_HEADER, rows) + f'<p class="note">{escape(note)}</p>'


def _glossary(front: Front) -> str:
    leading, following = _measures(front)
    explained = [(m.column, m.explanation) for m in (*leading, *following) if m.explanation]
    if front.plays:
        text = "the probability of being on the front, given the episodes that the trials share."
        explained.append((P_FRONT, text))
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
