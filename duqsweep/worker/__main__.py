"""`python -m duqsweep.worker MODULE:FUNCTION FOLDER`: what a job runs.

The function is named and imported, not unpickled: a file that others could write must not become
code.
"""

from __future__ import annotations

import importlib
import sys


def main(entry: str, worker_dir: str) -> None:
    """Call the function `MODULE:FUNCTION` with the worker's folder."""
    module, _, function = entry.partition(":")
    getattr(importlib.import_module(module), function)(worker_dir)


if __name__ == "__main__":
    main(*sys.argv[1:])
