"""MLflow's page of a sweep's trials, set up to open on the front.

MLflow keeps a view that somebody has shared as a tag of the experiment: columns, order, filter and
charts, packed. Its pages open with it when they are given its key.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from duqsweep.categories import is_success_rate
from duqsweep.control.front.measures import (
    ACTION_ERROR,
    CALL_MS,
    EPISODE_TIME_S,
    SUCCESS_RATE,
    Measure,
)
from duqsweep.control.front.records import Front
from duqsweep.control.view import wording

TAG = "mlflow.sharedViewState."  # then the view's key
MOST_PARAMS = 12  # as columns and axes; a tag holds 5,000 characters
MOST_RUNS = 1000  # in a chart
_SECTION = "front"
_ON_FRONT = "tags.`duqsweep.front`"


def view_key(sweep_key: str) -> str:
    """The key of a sweep's view among those of its experiment."""
    return f"duqsweep{sweep_key}"


def view_tag(front: Front, parent: str, shared_ms: int) -> str:
    """The value of the experiment's tag.

    Args:
        front: Of the sweep.
        parent: Id of the sweep's run.
        shared_ms: When the view was made, as MLflow shows it.
    """
    state = json.dumps(_state(front, parent), separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(state.encode(), 9)).decode()
    view = {
        "name": f"The front of {front.sweep}",
        "createdAt": shared_ms,
        "updatedAt": shared_ms,
        "state": f"deflate;{packed}",
    }
    return json.dumps(view)


def metric_name(measure: Measure) -> str:
    """A measure's name as a metric of MLflow, e.g. `success_rate/object`."""
    return measure.name.replace(".", "/")


def axes(front: Front) -> tuple[Measure, Measure]:
    """What the front is drawn against: a cost, and how good a trial is."""
    traded = [objective.measure for objective in front.objectives]
    good = front.success if front.plays else ACTION_ERROR
    costs = [measure for measure in traded if not is_success_rate(measure.name)]
    costs = [measure for measure in costs if measure is not good]
    return next(iter(costs), EPISODE_TIME_S if front.plays else CALL_MS), good


def _state(front: Front, parent: str) -> dict[str, Any]:
    x, y = axes(front)
    params = _params(front)
    measures = _measures(front)
    interval = ["success_low", "success_high"] if SUCCESS_RATE in measures else []
    metrics = [metric_name(measure) for measure in measures]
    metrics[1:1] = interval
    columns = [
        _ON_FRONT,
        *(f"metrics.`{name}`" for name in metrics),
        *(f"params.`{name}`" for name in params),
        "tags.`duqsweep.outcome`",
    ]
    section = {
        "uuid": _SECTION,
        "name": "The front",
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}'",
        # MLflow's page loads 100 runs: those on the front come first.
        "orderByKey": _ON_FRONT,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {},
        "runsHiddenMode": "SHOWALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": False,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "compareRunCharts": [_scatter(x, y), _parallel(_shared(params, front), (y, x))],
        "compareRunSections": [section],
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }


def _chart(name: str, kind: str, title: str) -> dict[str, Any]:
    return {
        "uuid": name,
        "type": kind,
        "runsCountToCompare": MOST_RUNS,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
        "displayName": title,
    }


def _scatter(x: Measure, y: Measure) -> dict[str, Any]:
    return {
        **_chart("scatter", "SCATTER", f"{y.label} against {x.label}"),
        "xaxis": {"key": metric_name(x), "type": "METRIC"},
        "yaxis": {"key": metric_name(y), "type": "METRIC"},
    }


def _parallel(params: Sequence[str], measures: Sequence[Measure]) -> dict[str, Any]:
    return {
        **_chart("parallel", "PARALLEL", "settings of each trial, and what they bring"),
        "selectedParams": list(params),
        "selectedMetrics": [metric_name(measure) for measure in measures],
        "showAllRuns": True,
    }


def _measures(front: Front) -> list[Measure]:
    """The columns of the front's table, and the action error, which explains a success rate."""
    shown = wording.shown_measures(front)
    return shown if ACTION_ERROR in shown else [*shown, ACTION_ERROR]


def _params(front: Front) -> list[str]:
    """The settings that differ between trials, most common first, under their names in MLflow."""
    names: dict[str, int] = {}
    for point in front.points:
        for name in wording.telling_params(point.params, front):
            names[name] = names.get(name, 0) + 1
    return sorted(names, key=lambda name: -names[name])[:MOST_PARAMS]


def _shared(params: Sequence[str], front: Front) -> list[str]:
    """Of some settings, most common first, those that enough trials have together.

    MLflow draws a run only where it has every setting of the chart, and hides a chart of no run;
    some settings only plans have.
    """
    drawn = [wording.telling_params(point.params, front).keys() for point in front.points]
    chosen = []
    for name in params:
        having = [names for names in drawn if name in names]
        if 2 * len(having) >= len(drawn):
            chosen.append(name)
            drawn = having
    return chosen
