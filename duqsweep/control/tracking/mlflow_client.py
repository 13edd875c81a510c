"""How MLflow is reached: its address by default, and a client that fails fast."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.control.tracking.tables import (
    copy_tables,
    database_path,
    keep_tables,
    kept_tables,
)
from duqsweep.errors import DuqsweepError


def default_uri(sweep_dir: Path) -> str:
    """The tracking URI of a database in the sweep's own folder."""
    return f"sqlite:///{(sweep_dir / files.MLFLOW_DB).absolute()}"


def open_client(uri: str) -> Any:
    """A client of the MLflow at `uri`; a SQLite database is made where there is none.

    Raises:
        DuqsweepError: A SQLite file is no database or cannot be opened.
        Exception: MLflow's own.
    """
    database = database_path(uri)
    kept = kept_tables() if database is not None and not database.exists() else None
    if database is not None and kept is not None and kept.exists():
        copy_tables(kept, database)
    if database is not None:
        _check(database, uri)
    client = import_client()(tracking_uri=uri)
    if database is not None and kept is not None and not kept.exists():
        client.search_experiments(max_results=1)  # now the tables are there
        keep_tables(database, kept)
    return client


def _check(database: Path, uri: str) -> None:
    """Raise DuqsweepError unless SQLite can open a file: MLflow would try again for minutes."""
    try:
        with closing(sqlite3.connect(database)) as opened:
            opened.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise DuqsweepError(f"MLflow at {uri} cannot take the copy: {error}") from error


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
    from mlflow import MlflowClient

    return MlflowClient
