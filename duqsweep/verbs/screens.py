"""Brings what people look at up to what a verb has changed: the report, and MLflow's copy."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from duqsweep import files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.records import Front
from duqsweep.control.tracking.runids import known_runs
from duqsweep.control.trials.reader import TrialView
from duqsweep.verbs.folder import tracking_uri

MLFLOW_WAIT_S = 60.0  # for what MLflow does not have yet


def update_screens(config: SweepConfig, front: Front, views: Sequence[TrialView]) -> None:
    """Write the report again, and bring MLflow's copy up to date, each where it is there.

    What MLflow does not take within `MLFLOW_WAIT_S` is said on stderr, with the command that
    catches up.

    Args:
        config: Of the sweep.
        front: Of the sweep, as front.json has it.
        views: Its trials.
    """
    from duqsweep.control.report.report import write_report

    if (config.directory / files.REPORT_HTML).exists():
        write_report(config.directory, front, views, config.base)
    if config.tracking.name == "none":
        return
    uri = tracking_uri(config)
    if known_runs(config.directory, uri) is None:
        return
    from duqsweep.control.tracking.tracker import open_tracker  # MLflow takes seconds to import

    tracker = open_tracker(config.tracking.name, config.directory, uri)
    tracker.sweep_started()
    missing = tracker.close(MLFLOW_WAIT_S)
    if missing:
        print(missing, file=sys.stderr)
