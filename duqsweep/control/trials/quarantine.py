"""Moves damaged files of a sweep aside, so that the sweep continues without them.

A file may be truncated, corrupt in the middle, missing or of another version. What the good files
of its trial do not say is evaluated anew; nothing that can be read is lost. Only the controller
does this, and never to a trial that a worker has locked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from duqsweep import files
from duqsweep.control.trial_status import read_status
from duqsweep.control.trials.reader import DEATH_KEYS, JOB_KEYS
from duqsweep.errors import EvaluationError, SpecError
from duqsweep.locking import is_locked
from duqsweep.result import EpisodeRecord, Throughput, TrialResult, Vitals, final_attempts
from duqsweep.spec import Trial

T = TypeVar("T")
DAMAGE = (EvaluationError, SpecError, FileNotFoundError)  # what reading a damaged trial raises


def put_aside(sweep_dir: Path, path: Path, why: object) -> str:
    """Move a file or folder of the sweep to `quarantine/`; returns a line for people."""
    name = path.relative_to(sweep_dir)
    target = sweep_dir / files.QUARANTINE_DIR / name
    number = 0
    while target.exists():
        number += 1
        target = target.with_name(f"{name.name}.{number}")
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    reason = " ".join(str(why).split())[:200]
    return f"damaged: {name} was moved to {target.relative_to(sweep_dir)} ({reason})"


def mend_trials(sweep_dir: Path) -> list[str]:
    """`mend_trial` for every trial of a sweep."""
    folders = sorted((sweep_dir / files.TRIALS_DIR).glob("*"))
    numbers = [int(folder.name) for folder in folders if folder.name.isdigit()]
    return [line for number in numbers for line in mend_trial(sweep_dir, number)]


def mend_trial(sweep_dir: Path, number: int, known: Trial | None = None) -> list[str]:
    """Move the damaged files of a trial aside; returns a line for each.

    Lines of a log that can be read stay. A result that says more than the other files is moved
    too, so that the trial is evaluated further. A trial without its spec.json is moved as a whole.

    Args:
        sweep_dir: The sweep's folder.
        number: Of the trial.
        known: The trial, if it was read before: its spec.json is then written again.
    """
    folder = files.trial_dir(sweep_dir, number)
    if is_locked(folder / files.TRIAL_LOCK):
        return []
    return _Mender(sweep_dir, folder, known).mend()


class _Mender:
    def __init__(self, sweep_dir: Path, folder: Path, known: Trial | None) -> None:
        self._dir = sweep_dir
        self._folder = folder
        self._known = known
        self._said: list[str] = []

    def mend(self) -> list[str]:
        if not self._has_spec():
            return self._said
        vitals = self._checked(files.VITALS_JSON, partial(files.read_record, Vitals))
        lost_vitals = bool(self._said)
        result = self._checked(files.RESULT_JSON, partial(files.read_record, TrialResult))
        self._checked(files.THROUGHPUT_JSON, partial(files.read_record, Throughput))
        self._checked(files.JOB_JSON, partial(files.read_object, keys=JOB_KEYS))
        self._checked(files.STATE_JSON, lambda path: read_status(path.parent))
        self._mend_log(
            files.FAILURES_JSONL, lambda line: files.checked_object(line, DEATH_KEYS, "it")
        )
        records = self._mend_log(files.EPISODES_JSONL, EpisodeRecord.from_json)
        if result is None:
            return self._said
        lacks_vitals = vitals is None and (lost_vitals or result.outcome == "complete")
        played = len(final_attempts(records))
        if result.outcome != "failed" and (lacks_vitals or result.episodes > played):
            why = f"it counts {result.episodes} episodes, the log has {played}"
            self._move(files.RESULT_JSON, "its benchmark is missing" if lacks_vitals else why)
        return self._said

    def _has_spec(self) -> bool:
        path = self._folder / files.SPEC_JSON
        try:
            trial = files.read_record(Trial, path)
            if trial.number != int(self._folder.name):
                raise SpecError(f"it is of trial {trial.number}")
        except DAMAGE as error:
            if self._known is not None:
                if path.exists():
                    self._move(files.SPEC_JSON, error)
                self._folder.mkdir(parents=True, exist_ok=True)
                files.write_json(path, self._known.to_json())
                return True
            if any((self._folder / name).exists() for name in files.TRIAL_FILES):
                self._said.append(put_aside(self._dir, self._folder, error))
            return False
        return True

    def _checked(self, name: str, read: Callable[[Path], T]) -> T | None:
        """The content of a file; None where there is none, or it was moved."""
        path = self._folder / name
        try:
            return read(path) if path.exists() else None
        except DAMAGE as error:
            self._move(name, error)
            return None

    def _mend_log(self, name: str, check: Callable[[Any], Any]) -> list[Any]:
        """The records of a log; one with lines that are none is written again without them."""
        path = self._folder / name
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        good, records, trouble = [], [], None
        for line in filter(None, lines):
            try:
                records.append(check(files.parse_line(line)))
                good.append(line)
            except DAMAGE as error:
                trouble = trouble or error
        if trouble is not None:
            self._move(name, trouble)
            files.write_bytes(path, b"".join(line + b"\n" for line in good))
        return records

    def _move(self, name: str, why: object) -> None:
        self._said.append(put_aside(self._dir, self._folder / name, why))
