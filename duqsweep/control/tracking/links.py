"""Where to look at a sweep in MLflow: the lines that end a command."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

from duqsweep.control.front.records import read_front
from duqsweep.control.tracking.mlflow_client import default_uri
from duqsweep.control.tracking.runids import known_runs
from duqsweep.masking import without_user

ENVIRONMENT = '"$MLFLOW_TRACKING_URI"'
LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
# Without it MLflow 3 opens in its mode for language models, which hides runs.
_MODE = "workflowType=machine_learning"


def links(sweep_dir: Path, uri: str | None = None) -> list[str]:
    """Where to find the sweep, its trials and its front compared in MLflow; one line each.

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
    experiment, parent = known["experiment"], known["parent"]
    front = read_front(sweep_dir)
    if known.get("view"):
        lines.append(f"front:    {front_link(base, experiment, known['view'])}")
    lines.append(f"sweep:    {run_link(base, experiment, parent)}")
    if known.get("view"):
        lines.append(f"trials:   {trials_link(base, experiment, known['view'])}")
    numbers = [str(point.trial) for point in front.members] if front else []
    compared = [known["trials"][number] for number in numbers if number in known["trials"]]
    if len(compared) > 1:
        lines.append(f"compare:  {compare_link(base, experiment, compared)}")
    return lines


def front_link(base: str, experiment: str, view: str) -> str:
    """The page of a sweep's trials as `shared_view` sets it up: the front as a chart."""
    return _view_link(base, experiment, view, "CHART")


def trials_link(base: str, experiment: str, view: str) -> str:
    """The same page as a table: the front first, with the columns of its view."""
    return _view_link(base, experiment, view, "TABLE")


def _view_link(base: str, experiment: str, view: str, mode: str) -> str:
    shared = f"viewStateShareKey={quote(view)}&compareRunsMode={mode}"
    return f"{base}/#/experiments/{experiment}/runs?{_MODE}&{shared}"


def run_link(base: str, experiment: str, run_id: str) -> str:
    """The page of one run."""
    return f"{base}/#/experiments/{experiment}/runs/{run_id}?{_MODE}"


def compare_link(base: str, experiment: str, run_ids: list[str]) -> str:
    """The page that compares some runs."""
    runs, experiments = (quote(json.dumps(ids)) for ids in (run_ids, [experiment]))
    return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}&{_MODE}"


def _ui_command(sweep_dir: Path, uri: str | None) -> str:
    beside = Path(sys.executable).with_name("mlflow")
    on_path = shutil.which("mlflow")
    command = "mlflow" if on_path == str(beside) or not beside.exists() else str(beside)
    if uri and "@" in uri:  # it may hold a password
        uri = ENVIRONMENT
    if uri != ENVIRONMENT:
        uri = shlex.quote(uri or default_uri(sweep_dir))
    return f"{shlex.quote(command)} ui --backend-store-uri {uri}"
