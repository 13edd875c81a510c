"""How MLflow is reached: its address by default, and a client that fails fast."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from duqsweep import files


def default_uri(sweep_dir: Path) -> str:
    """The tracking URI of a database in the sweep's own folder."""
    return f"sqlite:///{(sweep_dir / files.MLFLOW_DB).absolute()}"


def check_database(uri: str) -> None:
    """Raise sqlite3.Error for a SQLite file that is no database or cannot be opened.

    MLflow tries such a file again and again for minutes.
    """
    if not uri.startswith("sqlite:///"):
        return
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA schema_version")


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
