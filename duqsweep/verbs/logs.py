"""`duqsweep logs DIR --trial N [-f]`: the log of one trial, and what is added to it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from duqsweep import files
from duqsweep.control.trials.reader import read_trials
from duqsweep.errors import ConfigError
from duqsweep.verbs.folder import sweep_config

POLL_S = 0.3
LAST_LOOKS = 2  # after the result, which is written before the last line


def main(arguments: list[str]) -> int:
    """Print the log; with -f also what is added, until the trial has ended; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep logs", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument("--trial", type=int, required=True, metavar="N", help="a trial's number")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="wait for more, until the trial has a result"
    )
    parsed = parser.parse_args(arguments)
    config = sweep_config(parsed.directory)
    folder = files.trial_dir(config.directory, parsed.trial)
    if not (folder / files.SPEC_JSON).is_file():
        numbers = [view.number for view in read_trials(config.directory)]
        raise ConfigError(f"{config.name} has no trial {parsed.trial}; it has {numbers}")
    path = folder / files.LOG_TXT
    if not path.exists() and not parsed.follow:
        raise ConfigError(f"trial {parsed.trial} of {config.name} has no log yet: -f waits for it")
    for text in _followed(folder) if parsed.follow else [_read(path, 0)]:
        print(text.decode(errors="replace"), end="", flush=True)
    return 0


def _followed(folder: Path) -> Iterator[bytes]:
    """The log in pieces, to the end of the trial's evaluation."""
    path, read, quiet = folder / files.LOG_TXT, 0, 0
    while quiet < LAST_LOOKS:
        text = _read(path, read) if path.exists() else b""
        read += len(text)
        if text:
            yield text
            quiet = 0
            continue
        quiet = quiet + 1 if _is_over(folder) else 0
        time.sleep(POLL_S)


def _is_over(folder: Path) -> bool:
    """Whether the trial has a result that is younger than its last job."""
    result, job = folder / files.RESULT_JSON, folder / files.JOB_JSON
    if not result.exists():
        return False
    return not job.exists() or result.stat().st_mtime_ns >= job.stat().st_mtime_ns


def _read(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read()
