"""Where Optuna keeps a study: a journal in the sweep's folder, or a database."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy.exc import SQLAlchemyError

from duqsweep import files
from duqsweep.control.config.addresses import check_sqlite
from duqsweep.control.study.patient_storage import PatientStorage
from duqsweep.control.trials.quarantine import put_aside
from duqsweep.errors import ConfigError
from duqsweep.masking import masked

log = logging.getLogger(__name__)

TIMEOUT_S = 5  # to connect to a database


class _Unlocked:
    """The journal's lock: none, because `controller_lock` already keeps others away.

    Optuna's own leaves a link behind when its holder is killed, and waits 30 s for it.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class _Journal(JournalFileBackend):
    """Optuna's journal in a file; waits out a full disk, and leaves no half entry behind.

    Nobody else writes the file, so what this process has added is not read from it again. Optuna
    looks for news at each step, some thirty times per trial.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=cast(Any, _Unlocked()))
        self._known = 0  # entries that Optuna has taken in
        self._added: list[str] = []  # those after them, which this process has written
        self._is_read = False  # whether the file was, from its begin

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """See Optuna."""
        if not self._is_read:
            for entry in super().read_logs(log_number_from):
                self._known += 1
                yield entry
            self._is_read = True
            return
        del self._added[: log_number_from - self._known]
        self._known = log_number_from
        yield from map(json.loads, self._added)

    @files.patient
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See Optuna; waits for the disk only after an entry that is more than a detail."""
        path = Path(self._file_path)
        lines = [json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs]
        size = path.stat().st_size
        try:
            with path.open("ab") as file:
                file.write("".join(lines).encode("utf-8"))
                if not all(map(_is_detail, logs)):
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, size)
            error.filename = str(path)
            raise
        self._added += lines


def _is_detail(entry: dict[str, Any]) -> bool:
    """Whether an entry sets one thing of a trial that goes on.

    Another entry soon follows it to the disk. A computer that goes down in between takes it along;
    the study then differs from the trials' folders, and is written anew.
    """
    return "trial_id" in entry and "state" not in entry


def open_storage(
    directory: Path, url: str | None, say: Callable[[str], None] = log.warning
) -> BaseStorage:
    """The sweep's storage.

    Args:
        directory: The sweep's folder, held by this process.
        url: Of a database; None: the journal `study.log`.
        say: Takes a line for people where that is damaged.

    A journal that is damaged is moved to the sweep's quarantine, and an empty one takes its place.

    Raises:
        ConfigError: The database cannot be reached.
    """
    if url is not None:
        return _open_database(url)
    path = directory / files.STUDY_LOG
    cut_torn_line(path)
    try:
        _check_last_line(path)
        return open_journal(path)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        say(put_aside(directory, path, error))
        return open_journal(path)


def open_journal(path: Path) -> BaseStorage:
    """Optuna's journal in a file that no other process writes."""
    return JournalStorage(_Journal(path))


def _check_last_line(path: Path) -> None:
    """Raise ValueError where it is not JSON: Optuna would only notice when another line follows."""
    last = path.read_bytes().rstrip(b"\n").rpartition(b"\n")[2] if path.exists() else b""
    if last:
        json.loads(last)


def cut_torn_line(path: Path) -> None:
    """Cut off what a killed writer left of its last line; a later line would be glued to it."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _open_database(url: str) -> BaseStorage:
    check_sqlite(url, "storage.url")
    shown = masked(url)
    server = url.startswith(("postgresql", "mysql"))
    connect = {"connect_timeout": TIMEOUT_S} if server else {}
    options = {"connect_args": connect, "pool_pre_ping": True}
    try:
        return PatientStorage(get_storage(RDBStorage(url, engine_kwargs=options)), shown)
    except (SQLAlchemyError, StorageInternalError, ImportError, ValueError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConfigError(f"cannot open storage.url {shown}: {reason}") from error
