"""`duqsweep front DIR`: the front as the files show it now."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from duqsweep.control.front.content import compute_front
from duqsweep.control.report.report import print_front
from duqsweep.verbs.folder import sweep_config


def main(arguments: list[str]) -> int:
    """Print the table, or with --json the content of front.json; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep front", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    front = compute_front(config.directory, config.objectives, margin=config.margin)
    if parsed.json:
        print(json.dumps(front.to_json(), indent=2, ensure_ascii=False))
    else:
        print_front(front)
    return 0
