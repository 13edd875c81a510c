"""The files of one trial that go to MLflow, beside its numbers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duqsweep import files
from duqsweep.fingerprint import digest
from duqsweep.masking import masked

COPIED = (files.SPEC_JSON, files.VITALS_JSON, files.RESULT_JSON)


def trial_files(sweep_dir: Path, number: int) -> list[Path]:
    """Those that are there: spec, vitals, result and log, and videos that begin with this trial."""
    folder = files.trial_dir(sweep_dir, number)
    paths = [folder / name for name in (*COPIED, files.LOG_TXT)]
    films = (sweep_dir / files.VIDEOS_DIR).glob(f"trial_{number:04d}_*.mp4")
    return [path for path in (*paths, *sorted(films)) if path.is_file()]


def stamp_of(paths: list[Path]) -> str:
    """What changes with the files."""
    seen = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return digest(seen)


@contextmanager
def gathered(paths: list[Path]) -> Iterator[Path]:
    """A folder with copies of them, so that one call takes all; the log without passwords."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in paths:
            if path.name == files.LOG_TXT:
                text = path.read_text(encoding="utf-8", errors="replace")
                (folder / path.name).write_text(masked(text), encoding="utf-8")
            else:
                shutil.copyfile(path, folder / path.name)
        yield folder
