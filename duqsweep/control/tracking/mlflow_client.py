"""How MLflow is reached: its address by default, and a client that fails fast."""

from __future__ import annotations

import importlib
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.control.tracking.tables import (
    copy_tables,
    database_path,
    keep_tables,
    kept_tables,
)


def default_uri(sweep_dir: Path) -> str:
    """The tracking URI of a database in the sweep's own folder."""
    return f"sqlite:///{(sweep_dir / files.MLFLOW_DB).absolute()}"


def open_client(uri: str) -> Any:
    """A client of the MLflow at `uri`; a SQLite database is made where there is none.

    Raises:
        sqlite3.Error: A SQLite file is no database or cannot be opened.
        Exception: MLflow's own.
    """
    database = database_path(uri)
    kept = kept_tables() if database is not None and not database.exists() else None
    if database is not None and kept is not None and kept.exists():
        copy_tables(kept, database)
    check_database(uri)
    client = import_client()(tracking_uri=uri)
    if database is not None and kept is not None and not kept.exists():
        client.search_experiments(max_results=1)  # now the tables are there
        keep_tables(database, kept)
    return client


def check_database(uri: str) -> None:
    """Raise sqlite3.Error for a SQLite file that is no database or cannot be opened.

    MLflow tries such a file again and again for minutes.
    """
    database = database_path(uri)
    if database is not None:
        with closing(sqlite3.connect(database)) as opened:
            opened.execute("PRAGMA schema_version")


def import_client() -> Any:
    """MlflowClient, made to fail fast, to stay quiet and to send nothing home.

    MLflow takes these settings from the environment only; what the user has set stays.
    """
    # Each retry would be a line of its own; only their outcome is reported.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ("MLFLOW_LOGGING_LEVEL", "WARNING"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),  # 7 blocks for four minutes per call
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ("GIT_PYTHON_REFRESH", "quiet"),
    ):
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with _withheld("pandas"):
            return _import()
    except ImportError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
            del sys.modules[name]
        return _import()


def _import() -> Any:
    return importlib.import_module("mlflow").MlflowClient


@contextmanager
def _withheld(package: str) -> Iterator[None]:
    """Let this thread import MLflow as its small edition is, which has no pandas.

    That saves 74 MB and a third of the import's time. The client needs none of it, and once MLflow
    is imported, pandas is there for whoever asks for it.
    """
    finder = _Withheld(package, threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Withheld(MetaPathFinder):
    """Finds no package of one name for one thread, and says so."""

    def __init__(self, package: str, thread: int) -> None:
        self._package = package
        self._thread = thread

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """See `MetaPathFinder`; raises ModuleNotFoundError."""
        is_it = fullname.partition(".")[0] == self._package
        if is_it and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)
