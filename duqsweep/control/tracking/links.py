"""Where to look at a sweep in MLflow: the lines that end a command."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from duqsweep import files
from duqsweep.categories import SUCCESS_RATE
from duqsweep.control.tracking.mlflow_client import default_uri
from duqsweep.control.tracking.runids import known_runs
from duqsweep.control.view import wording
from duqsweep.masking import without_user

ENVIRONMENT = '"$MLFLOW_TRACKING_URI"'
LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
# Without it MLflow 3 opens in its mode for language models, which hides runs.
_MODE = "workflowType=machine_learning"


def links(sweep_dir: Path, uri: str | None = None) -> list[str]:
    """How to open MLflow, the sweep and its trials there, and the front compared; a line each.

    Args:
        sweep_dir: The sweep's folder.
        uri: MLflow's tracking URI; None: the database in the folder.

    Returns:
        Nothing where MLflow does not have the sweep yet.
    """
    known = known_runs(sweep_dir, uri)
    if known is None:
        return []
    remote = uri is not None and uri.startswith(("http://", "https://"))
    base = without_user(uri).rstrip("/") if uri and remote else LOCAL_UI
    lines = [] if remote else [f"MLflow:   {_ui_command(sweep_dir, uri)}"]
    lines.append(f"sweep:    {run_link(base, known['experiment'], known['parent'])}")
    content = _content(sweep_dir)
    by_success = content is None or wording.plays(content)
    success = wording.success_measure(content).replace(".", "/") if content else SUCCESS_RATE
    best_first = (success, False) if by_success else ("call_ms", True)
    lines.append(
        f"trials:   {trials_link(base, known['experiment'], known['parent'], *best_first)}"
    )
    front = wording.front_points(content) if content else []
    numbers = [str(point["trial"]) for point in front]
    compared = [known["trials"][number] for number in numbers if number in known["trials"]]
    if len(compared) > 1:
        lines.append(f"compare:  {compare_link(base, known['experiment'], compared)}")
    return lines


def trials_link(
    base: str, experiment: str, parent: str, metric: str = "success_rate", rising: bool = False
) -> str:
    """The page of a sweep's trials, ordered by a metric; best success first unless told."""
    wanted = quote(f"tags.`mlflow.parentRunId` = '{parent}'")
    order = f"orderByKey={quote(f'metrics.`{metric}`')}&orderByAsc={str(rising).lower()}"
    return f"{base}/#/experiments/{experiment}/runs?{_MODE}&searchFilter={wanted}&{order}"


def run_link(base: str, experiment: str, run_id: str) -> str:
    """The page of one run."""
    return f"{base}/#/experiments/{experiment}/runs/{run_id}?{_MODE}"


def compare_link(base: str, experiment: str, run_ids: list[str]) -> str:
    """The page that compares some runs."""
    runs, experiments = (quote(json.dumps(ids)) for ids in (run_ids, [experiment]))
    return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}&{_MODE}"


def _content(sweep_dir: Path) -> dict[str, Any] | None:
    path = sweep_dir / files.FRONT_JSON
    return files.read_json(path) if path.exists() else None


def _ui_command(sweep_dir: Path, uri: str | None) -> str:
    beside = Path(sys.executable).with_name("mlflow")
    on_path = shutil.which("mlflow")
    command = "mlflow" if on_path == str(beside) or not beside.exists() else str(beside)
    if uri and "@" in uri:  # it may hold a password
        uri = ENVIRONMENT
    if uri != ENVIRONMENT:
        uri = shlex.quote(uri or default_uri(sweep_dir))
    return f"{shlex.quote(command)} ui --backend-store-uri {uri}"
