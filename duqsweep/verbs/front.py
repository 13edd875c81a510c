"""`duqsweep front DIR`: the front as the files show it now."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from duqsweep.control.report.report import print_front
from duqsweep.control.trials.reader import read_trials
from duqsweep.verbs.folder import explained_front, sweep_config, sweep_look


def main(arguments: list[str]) -> int:
    """Print the table, or with --json the content of front.json; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep front", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--importances",
        action="store_true",
        help="also what success depends on: each parameter's share of its variance",
    )
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    look = sweep_look(config)
    front = look.front
    if parsed.importances:
        front = explained_front(config, read_trials(config.directory))
    for folder, why in look.damaged.items():
        print(f"trial {folder} cannot be read: {why}", file=sys.stderr)
    if parsed.json:
        print(json.dumps(front.to_json(), indent=2, ensure_ascii=False))
    else:
        print_front(front)
    return 0
