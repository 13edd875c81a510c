"""A command as its user may type it again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from duqsweep.masking import masked

PROGRAM = "duqsweep"  # as it is installed; else it is a module of python


def command(words: Sequence[str]) -> str:
    """The command line of these words, quoted for a shell; passwords are masked."""
    installed = Path(sys.argv[0]).name == PROGRAM
    program = PROGRAM if installed else f"python -m {PROGRAM}"
    return masked(f"{program} {shlex.join(words)}".strip())
