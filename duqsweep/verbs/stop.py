"""`duqsweep stop DIR`: ask a running sweep to end; its trials finish their episode first."""

from __future__ import annotations

import argparse
from pathlib import Path

from duqsweep import files
from duqsweep.verbs.folder import sweep_config


def main(arguments: list[str]) -> int:
    """Write the `stop` file that the controller looks for; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep stop", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    directory = parser.parse_args(arguments).directory
    config = sweep_config(directory)
    files.write_text(directory / files.STOP, "")
    print(
        f"{config.name} was asked to stop: running trials finish their episode. "
        f"To resume later: python -m duqsweep +sweep={config.name} with the same overrides"
    )
    return 0
