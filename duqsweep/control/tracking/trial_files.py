"""The files of one trial that go to MLflow, beside its numbers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.request import url2pathname

from duqsweep import files
from duqsweep.fingerprint import digest
from duqsweep.masking import masked

COPIED = (files.SPEC_JSON, files.VITALS_JSON, files.RESULT_JSON, files.EPISODES_JSONL)


_MASKED = (files.LOG_TXT, files.SWEEP_YAML)  # they may hold passwords


def trial_files(sweep_dir: Path, number: int) -> list[Path]:
    """Those that are there: what its numbers come from, its log, its videos."""
    folder = files.trial_dir(sweep_dir, number)
    paths = [folder / name for name in (*COPIED, files.LOG_TXT)]
    films = (sweep_dir / files.VIDEOS_DIR).glob(f"trial_{number:04d}_*.mp4")
    return [path for path in (*paths, *sorted(films)) if path.is_file()]


def stamp_of(paths: list[Path]) -> str:
    """What changes with the files."""
    seen = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return digest(seen)


def put_files(paths: list[Path], artifacts: str, log_artifacts: Callable[[str], None]) -> None:
    """Copy files to where a run's artifacts are; logs without passwords.

    Args:
        paths: Of the files.
        artifacts: The address of the run's artifacts. A folder of this machine is written without
            MLflow's client, which would look up the run first.
        log_artifacts: Takes a folder, whose files it sends to any other address.
    """
    if artifacts.startswith("file:///"):
        folder = Path(url2pathname(artifacts.removeprefix("file://")))
        folder.mkdir(parents=True, exist_ok=True)
        _copy(paths, folder)
        return
    with tempfile.TemporaryDirectory() as name:
        _copy(paths, Path(name))
        log_artifacts(name)


def _copy(paths: list[Path], folder: Path) -> None:
    for path in paths:
        if path.name in _MASKED:
            text = path.read_text(encoding="utf-8", errors="replace")
            (folder / path.name).write_text(masked(text), encoding="utf-8")
        else:
            shutil.copyfile(path, folder / path.name)
