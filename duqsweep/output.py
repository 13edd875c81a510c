"""Standard output and error that may be closed, full, or of an encoding that lacks letters."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


def prepare_output() -> None:
    """Closed streams lead nowhere; letters that an encoding lacks become `?` and no error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def silence(stream: TextIO) -> None:
    """Let whatever is still written to `stream` vanish: nobody reads it, or it is full."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def flush_or_silence(stream: TextIO) -> OSError | None:
    """Write out what `stream` holds; returns why that was not possible, after silencing it."""
    try:
        stream.flush()
    except OSError as error:
        silence(stream)
        return error
    return None
