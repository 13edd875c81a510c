"""`report.html`: one file that needs no network, no server and, but for sorting, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from duqsweep.control.report.tasks import categories_table, tasks_table
from duqsweep.control.report.webpage import SCRIPT, STYLE, Cell, sortable_table
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view import tables, wording
from duqsweep.control.view.claims import HEADER, compare_claims
from duqsweep.control.view.headline import headline
from duqsweep.control.view.simulation import simulator_line, warnings

_PLAYED = ("success", "95 %", "time", "p(front)")  # columns of a sweep that walks episodes
_FACTS = ("kernel", "weights [MB]", "mean bits", "action error")
_Point = Mapping[str, Any]


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
    joined = len(content["objectives"]) == 2
    best = "The line joins the trials" if joined else "Those on the front are the trials"
    body = [
        f"<h1>{escape(content['sweep'])}</h1>",
        f'<p class="counts">{escape(wording.counts_line(content))}</p>',
        f'<p class="headline">{escape(headline(content))}</p>',
        *(f'<p class="warning">{escape(w)}</p>' for w in warnings(content["simulator"])),
        f"<figure>{svg}<figcaption>Each mark is a trial; rest the pointer on one for its settings. "
        f"{best} that no other beats. A trial without an episode or a timing "
        "has no place here; the table below has all.</figcaption></figure>",
        _section("The front", _trials_table(wording.front_points(content), content)),
        _section("The document's claims, and what was measured", _claims(content)),
        _section("Success by category, on the front", categories_table(content)),
        _section("Success of each task, on the front", tasks_table(content, views)),
        _section("Every trial", _trials_table(content["points"], content)),
        _section("Not run to the end", _unfinished(content)),
        _section("How to read this", _glossary(content)),
        _section("What was searched", _searched(sweep_yaml)),
        _section("Where it ran", _simulator(content) + _machines(views)),
    ]
    title = f"{escape(content['sweep'])} · duqsweep"
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


def _trials_table(points: Sequence[_Point], content: Mapping[str, Any]) -> str:
    params = [wording.telling_params(point, content) for point in points]
    names = sorted({name for values in params for name in values} - {*_FACTS})
    plays = wording.plays(content)
    played = [*_PLAYED] if plays else []
    header = ["trial", "name", *played, "call", "speed-up", *names, *_FACTS]
    header += ["episodes"] if plays else []
    rows = []
    for point, values in zip(points, params, strict=True):
        cells = [*_results(point, plays), *((_shown(values.get(n)), values.get(n)) for n in names)]
        cells += _facts(point)
        cells += [(str(point["episodes"]), point["episodes"])] if plays else []
        rows.append(("front" if point["on_front"] else "", cells))
    return sortable_table(header, rows)


def _unfinished(content: Mapping[str, Any]) -> str:
    rows: list[tuple[str, list[Cell]]] = []
    for point in content["points"]:
        if point["outcome"] != "complete":
            name, why = wording.label(point), wording.why(point)
            params = wording.settings(wording.telling_params(point, content))
            texts = [
                (name, point["trial"]),
                *((text, text) for text in (point["outcome"], why, params)),
            ]
            rows.append(("", texts))
    return sortable_table(["trial", "outcome", "reason", "settings"], rows)


def _shown(value: Any) -> str:
    return "" if value is None else wording.number(value)


def _results(point: _Point, plays: bool) -> list[Cell]:
    played = [
        (wording.percent(point["success_rate"]), point["success_rate"]),
        (wording.interval(point), point["success_low"]),
        (wording.seconds(point["episode_time_s"]), point["episode_time_s"]),
        (wording.probability(point["p_front"]), point["p_front"]),
    ]
    return [
        (str(point["trial"]), point["trial"]),
        (point["name"] or "", point["name"] or ""),
        *(played if plays else []),
        (wording.milliseconds(point["call_ms"]), point["call_ms"]),
        (wording.ratio(point["speedup"]), point["speedup"]),
    ]


def _facts(point: _Point) -> list[Cell]:
    names = ("weights_mb", "mean_weight_bits", "action_error")
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
    return sortable_table(HEADER, cells) + f'<p class="note">{escape(note)}</p>'


def _glossary(content: Mapping[str, Any]) -> str:
    kernels = (line.partition(": ") for line in tables.notes(content) if line.startswith("kernel"))
    played = [
        (
            "success",
            "successes over successes and failures; an episode that broke down counts as "
            "neither. 95 % is Wilson's interval.",
        ),
        (
            "time",
            "policy calls of an episode of nominal length × median latency of a call. Each trial "
            "times the unquantized policy on its own node too, and the ratio of the two enters, so "
            "that unlike nodes compare.",
        ),
        (
            "p(front)",
            "the probability of being on the front, given the episodes that the trials share.",
        ),
    ]
    entries = [
        *(played if wording.plays(content) else []),
        (
            "call",
            "median latency of a policy call, batch 1, device synchronised, warm-up and "
            "compilation apart: as measured on the GPU that timed the reference, elsewhere the "
            "reference's over the speed-up.",
        ),
        (
            "speed-up",
            "latency of the unquantized, eager policy over the trial's, on the same node.",
        ),
        (
            "action error",
            "root mean square difference to the unquantized policy's normalised actions "
            "under the same noise, on fixed observations.",
        ),
        (
            "hypervolume",
            f"{content['hypervolume']:.4g}: what the front covers, counted from "
            f"{'success 0 and ' if wording.plays(content) else ''}1.5 × the reference's time (for "
            "other objectives 1.5 × the worst value).",
        ),
    ]
    entries += [(name, text) for name, _, text in kernels]
    return (
        "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in entries) + "</dl>"
    )


def _simulator(content: Mapping[str, Any]) -> str:
    line = simulator_line(content["simulator"])
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
