"""Where Optuna keeps a study: a journal in the sweep's folder, or a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy.exc import SQLAlchemyError

from duqsweep import files
from duqsweep.control.config.addresses import check_sqlite
from duqsweep.errors import ConfigError
from duqsweep.masking import masked

TIMEOUT_S = 5  # to connect to a database


class _Unlocked:
    """The journal's lock: none, because `controller_lock` already keeps others away.

    Optuna's own leaves a link behind when its holder is killed, and waits 30 s for it.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


def open_storage(directory: Path, url: str | None) -> BaseStorage:
    """The sweep's storage.

    Args:
        directory: The sweep's folder, held by this process.
        url: Of a database; None: the journal `study.log`.

    Raises:
        ConfigError: The database cannot be reached, or the journal is none.
    """
    if url is not None:
        return _open_database(url)
    path = directory / files.STUDY_LOG
    cut_torn_line(path)
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=cast(Any, _Unlocked())))
    except (ValueError, TypeError, LookupError) as error:  # lines of another kind
        raise ConfigError(f"{path} is not a journal of this version: {error}") from error


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
    try:
        return RDBStorage(url, engine_kwargs={"connect_args": connect, "pool_pre_ping": True})
    except (SQLAlchemyError, StorageInternalError, ImportError, ValueError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConfigError(f"cannot open storage.url {shown}: {reason}") from error
