"""`duqsweep sync DIR`: bring MLflow up to what a sweep's files say; rebuilds an emptied one."""

from __future__ import annotations

import argparse
from pathlib import Path

from duqsweep import files
from duqsweep.control.tracking.links import links
from duqsweep.control.tracking.mlflow_client import default_uri
from duqsweep.control.tracking.runids import check_target
from duqsweep.masking import masked
from duqsweep.verbs.folder import sweep_config, sweep_front, tracking_uri


def main(arguments: list[str]) -> int:
    """Mirror once and print where to look; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep sync", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument(
        "--uri",
        help="MLflow's tracking URI; default: where the sweep's copy goes",
    )
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    uri = parsed.uri or tracking_uri(config)
    if not parsed.uri:
        check_target(config.directory, uri or default_uri(config.directory))
    from duqsweep.control.tracking.mirror import mirror  # MLflow takes seconds to import

    front = config.directory / files.FRONT_JSON
    if not front.exists():  # the mirror takes from it which trials are on the front
        files.write_json(front, sweep_front(config).to_json())
    count = mirror(config.directory, uri)
    where = masked(uri or default_uri(config.directory))
    print(f"{config.name}: {count} trials are in MLflow at {where}")
    print(*links(config.directory, uri), sep="\n")
    return 0
