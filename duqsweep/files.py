"""Names of the files in a sweep's folder, and the only ways they are written and read.

A whole file appears atomically (temporary name, fsync, rename); a log grows by whole lines. A
process killed at any instruction leaves either the old file or the new one, and at most one torn
last line, which readers ignore and the next writer cuts off.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from duqsweep.codec import decode, shown
from duqsweep.errors import ConfigError, EvaluationError, SpecError

T = TypeVar("T")

SWEEP_YAML = "sweep.yaml"
STUDY_LOG = "study.log"
DASHBOARD_LOG = "dashboard.log"  # the study once more, for people: with the reference
IDENTITY_JSON = "identity.json"  # what makes the sweep this one
LEDGER_JSON = "ledger.json"
SIMULATOR_JSON = "simulator.json"  # what plays the episodes; the same from the first to the last
TRIALS_DIR = "trials"
WORKERS_DIR = "workers"
CONTROLLER_DIR = "controller"  # the job of a controller that was submitted; its log
QUARANTINE_DIR = "quarantine"  # damaged files; see control/trials/quarantine.py
CACHE_DIR = "cache"  # packs, calibration observations: safe to delete
REFERENCE_JSON = "reference.json"  # the call time that speed-ups are measured against
POSTERIOR_JSON = "posterior.json"  # success rates as a search's model believes them
FRONT_JSON = "front.json"
IMPORTANCES_JSON = "importances.json"  # what success depended on when the sweep ended last
FRONT_SOURCES_JSON = "front.sources.json"  # what front.json was computed from
FRONT_CSV = "front.csv"
FRONT_PNG = "front.png"
REPORT_HTML = "report.html"
REPORT_FILES = (FRONT_JSON, FRONT_CSV, FRONT_PNG, REPORT_HTML)
TRACKING_JSON = "tracking.json"  # the sweep's key in MLflow, and the ids of its runs there
MLFLOW_DB = "mlflow.db"
MLFLOW_ARTIFACTS = "mlartifacts"
VIDEOS_DIR = "videos"

SPEC_JSON = "spec.json"
JOB_JSON = "job.json"
VITALS_JSON = "vitals.json"
EPISODES_JSONL = "episodes.jsonl"
ACTIONS_JSONL = "actions.jsonl"  # what each episode's robot did, so that it can be replayed
THROUGHPUT_JSON = "throughput.json"  # how fast its latest assignment is or was played
RESULT_JSON = "result.json"
PHASE_JSON = "phase.json"  # what its evaluation does before the first episode; see worker/phases.py
STATE_JSON = "state.json"  # its state and why; the controller's, see control/trial_status.py
LOG_TXT = "log.txt"
FAILURES_JSONL = "failures.jsonl"  # how its jobs died, and when a person gave it again
STOP = "stop"
TRIAL_LOCK = ".lock"  # held by whoever evaluates the trial
TRIAL_FILES = (
    SPEC_JSON,
    VITALS_JSON,
    EPISODES_JSONL,
    THROUGHPUT_JSON,
    RESULT_JSON,
    JOB_JSON,
    FAILURES_JSONL,
    STATE_JSON,
)


# A disk is full or a network file system is away: both pass, so a controller waits.
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO)
PAUSE_S = 5.0  # between two attempts

_P = ParamSpec("_P")
_say: Callable[[str], None] | None = None  # set while this process waits out what is passing


@contextmanager
def waiting_out(say: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, reads and writes wait until a full or absent disk works again.

    Args:
        say: Takes a line for people when something begins to wait.
    """
    global _say
    before, _say = _say, say
    try:
        yield
    finally:
        _say = before


def waiting_say() -> Callable[[str], None] | None:
    """What takes a line for people when something begins to wait; None outside `waiting_out`."""
    return _say


def patient(act: Callable[_P, T]) -> Callable[_P, T]:
    """A function that is called again, inside of `waiting_out`, after an error that may pass."""

    @wraps(act)
    def repeated(*args: _P.args, **kwargs: _P.kwargs) -> T:
        said = False
        while True:
            try:
                return act(*args, **kwargs)
            except OSError as error:
                if _say is None or error.errno not in PASSING:
                    raise
                if not said:
                    _say(f"{error.strerror}: {error.filename}; waiting until it works again")
                said = True
            time.sleep(PAUSE_S)

    return repeated


def trial_dir(sweep_dir: Path, number: int) -> Path:
    """The folder of trial `number`, e.g. `trials/0007`."""
    return sweep_dir / TRIALS_DIR / f"{number:04d}"


@patient
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
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


@patient
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


def read_object(path: Path, keys: Collection[str] = ()) -> dict[str, Any]:
    """The JSON object that a file holds; `keys` are those that it must have.

    Raises:
        EvaluationError: The file is not JSON, no object, or lacks a key; the message names it.
        FileNotFoundError: There is no such file.
    """
    return checked_object(read_json(path), keys, str(path))


def checked_object(data: Any, keys: Collection[str], where: str) -> dict[str, Any]:
    """JSON data if it is an object with these keys; else EvaluationError says so of `where`."""
    if not isinstance(data, dict):
        raise EvaluationError(f"{where} is damaged: it must hold an object, got {shown(data)}")
    for key in keys:
        if key not in data:
            raise EvaluationError(f"{where} is damaged: it lacks the key {key!r}")
    return data


def read_record(cls: type[T], path: Path) -> T:
    """The dataclass `cls` that a JSON file holds.

    Raises:
        EvaluationError: The file is not JSON; the message names it.
        SpecError: It holds unknown, missing or impossible values; the message names the file.
        FileNotFoundError: There is no such file.
    """
    return _record(cls, read_json(path), str(path))


def read_derived(path: Path, parse: Callable[[Any], T], what: str, remedy: str) -> T | None:
    """What a file holds that is computed from others; None where it was not written yet.

    Args:
        path: The file.
        parse: Makes the value of its JSON data; raises SpecError for what it does not know.
        what: What a file is that cannot be read, e.g. "of another version".
        remedy: What writes it again.

    Raises:
        ConfigError: The file is torn, or not of this version of duqsweep.
    """
    if not path.exists():
        return None
    try:
        return parse(read_json(path))
    except (EvaluationError, SpecError) as error:
        raise ConfigError(
            f"{path} is {what} of duqsweep ({error}); delete it, and {remedy}"
        ) from error


def _record(cls: type[T], data: Any, where: str) -> T:
    try:
        return decode(cls, data)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


@patient
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


def read_records(cls: type[T], path: Path) -> list[T]:
    """All complete lines of a log, each a dataclass `cls`; see `read_lines` and `read_record`."""
    return [_record(cls, line, f"{path}:{i}") for i, line in enumerate(read_lines(path), 1)]


def read_objects(path: Path, keys: Collection[str]) -> list[dict[str, Any]]:
    """All complete lines of a log, each an object with these keys; see `read_lines`."""
    return [checked_object(line, keys, f"{path}:{i}") for i, line in enumerate(read_lines(path), 1)]


@patient
def read_lines(path: Path) -> list[Any]:
    """All complete JSON lines of a log; a missing file is an empty log.

    Raises:
        EvaluationError: A line is not JSON; the message names file and line.
    """
    if not path.exists():
        return []
    complete, _, _torn = path.read_bytes().rpartition(b"\n")
    return [_line(path, i, line) for i, line in enumerate(complete.split(b"\n"), 1) if line]


def parse_line(line: bytes) -> Any:
    """One line of a log; raises EvaluationError when it is not JSON."""
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"not valid JSON: {error}") from error


def _line(path: Path, number: int, line: bytes) -> Any:
    try:
        return parse_line(line)
    except EvaluationError as error:
        raise EvaluationError(f"{path}:{number} is {error}") from error


def _cut_torn_line(file: Any) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
