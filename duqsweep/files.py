"""Names of the files in a sweep's folder, and the only ways they are written and read.

A whole file appears atomically (temporary name, fsync, rename); a log grows by whole lines. A
process killed at any instruction leaves either the old file or the new one, and at most one torn
last line, which readers ignore and the next writer cuts off.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from duqsweep.errors import EvaluationError

SWEEP_YAML = "sweep.yaml"
STUDY_LOG = "study.log"
IDENTITY_JSON = "identity.json"  # what makes the sweep this one
LEDGER_JSON = "ledger.json"
SIMULATOR_JSON = "simulator.json"  # what plays the episodes; the same from the first to the last
TRIALS_DIR = "trials"
WORKERS_DIR = "workers"
CACHE_DIR = "cache"  # packs, calibration observations: safe to delete
REFERENCE_JSON = "reference.json"  # the call time that speed-ups are measured against
FRONT_JSON = "front.json"
FRONT_CSV = "front.csv"
FRONT_PNG = "front.png"
REPORT_HTML = "report.html"
TRACKING_JSON = "tracking.json"  # the sweep's key in MLflow, and the ids of its runs there
MLFLOW_DB = "mlflow.db"
MLFLOW_ARTIFACTS = "mlartifacts"
VIDEOS_DIR = "videos"

SPEC_JSON = "spec.json"
JOB_JSON = "job.json"
VITALS_JSON = "vitals.json"
EPISODES_JSONL = "episodes.jsonl"
ACTIONS_JSONL = "actions.jsonl"  # what each episode's robot was told, so that it can be replayed
RESULT_JSON = "result.json"
STATE_JSON = "state.json"  # its state and why; the controller's, see control/trial_status.py
LOG_TXT = "log.txt"
FAILURES_JSONL = "failures.jsonl"  # how its jobs died, and when a person gave it again
STOP = "stop"
TRIAL_LOCK = ".lock"  # held by whoever evaluates the trial


def trial_dir(sweep_dir: Path, number: int) -> Path:
    """The folder of trial `number`, e.g. `trials/0007`."""
    return sweep_dir / TRIALS_DIR / f"{number:04d}"


def write_bytes(path: Path, data: bytes, private: bool = False) -> None:
    """Replace `path` by `data` atomically and durably; its folder must exist.

    Args:
        path: The file.
        data: Its new content.
        private: Only the owner may read it.

    Raises:
        OSError: It could not be written; the old file stays, and nothing else.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if private:
                os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        error.filename, error.filename2 = str(path), None  # what the caller knows of
        raise


def write_text(path: Path, text: str, private: bool = False) -> None:
    """Replace `path` by `text` in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"), private)


def write_json(path: Path, data: Any) -> None:
    """Replace `path` by `data` as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        EvaluationError: The file is not JSON; the message names it.
        FileNotFoundError: There is no such file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deep
        raise EvaluationError(f"{path} is not valid JSON: {error}") from error


def append_line(path: Path, data: Any) -> None:
    """Append `data` as one JSON line, durably, after cutting off a killed writer's torn line."""
    line = json.dumps(data, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        with path.open("ab+") as file:
            _cut_torn_line(file)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)
        raise


def read_lines(path: Path) -> list[Any]:
    """All complete JSON lines of a log; a missing file is an empty log.

    Raises:
        EvaluationError: A line is not JSON; the message names file and line.
    """
    if not path.exists():
        return []
    complete, _, _torn = path.read_bytes().rpartition(b"\n")
    return [_line(path, i, line) for i, line in enumerate(complete.split(b"\n"), 1) if line]


def _line(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path}:{number} is not valid JSON: {error}") from error


def _cut_torn_line(file: Any) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
