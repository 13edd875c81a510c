"""`duqsweep sync DIR`: bring MLflow up to what a sweep's files say; rebuilds an emptied one."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from duqsweep import files
from duqsweep.control.front.content import front_content
from duqsweep.control.tracking.links import links
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

    front = config.directory / files.FRONT_JSON
    if not front.exists():  # the mirror takes from it which trials are on the front
        files.write_json(front, front_content(config.directory, config.objectives))
    count = mirror(config.directory, parsed.uri)
    print(f"{config.name}: {count} trials are in MLflow")
    print(*links(config.directory, parsed.uri), sep="\n")
    return 0
