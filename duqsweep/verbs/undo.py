"""A start that is refused leaves the folder as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from duqsweep import files
from duqsweep.control.study.controller_lock import LOCK

# What a start writes before it may still be refused.
WRITTEN = (
    LOCK,
    files.STUDY_LOG,
    files.IDENTITY_JSON,
    files.LEDGER_JSON,
    files.SIMULATOR_JSON,
    files.SWEEP_YAML,
)


@contextmanager
def undone_if_refused(directory: Path) -> Iterator[None]:
    """Where the block raises, remove what it made in and above `directory`, and nothing else."""
    made_folders = [path for path in (directory, *directory.parents) if not path.exists()]
    new = [directory / name for name in WRITTEN if not (directory / name).exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what cannot be removed now is empty, and does no harm
            for path in new:
                path.unlink(missing_ok=True)
            for folder in made_folders:
                folder.rmdir()
        raise
