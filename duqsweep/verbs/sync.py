"""`duqsweep sync DIR`: bring MLflow up to what a sweep's files say; rebuilds an emptied one."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from duqsweep.verbs.folder import sweep_config


def main(arguments: list[str]) -> int:
    """Mirror once and print where to look; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep sync", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument(
        "--uri",
        default=os.environ.get("MLFLOW_TRACKING_URI"),
        help="MLflow's tracking URI; default: MLFLOW_TRACKING_URI, else a database in the folder",
    )
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    from duqsweep.control.tracking.mirror import mirror  # MLflow takes seconds to import

    count = mirror(config.directory, parsed.uri)
    print(f"{config.name}: {count} trials are in MLflow")
    return 0
