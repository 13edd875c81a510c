"""The console that tables are printed on: as wide as what shows them."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console

LOG_WIDTH = 120  # columns, where no terminal and no COLUMNS says how many there are


def open_console(stream: TextIO | None = None) -> Console:
    """A console on `stream` (standard output).

    COLUMNS sets its width; without that it is as wide as the terminal that the command was started
    in, also where a pipe follows.
    """
    console = Console(file=stream)
    return console if _knows_width() else Console(file=stream, width=LOG_WIDTH)


def _knows_width() -> bool:
    columns = os.environ.get("COLUMNS", "")
    return columns.isdigit() or any(map(os.isatty, (0, 1, 2)))
