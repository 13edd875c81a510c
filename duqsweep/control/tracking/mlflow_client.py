"""How MLflow is reached: its address by default, and a client that fails fast."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from duqsweep import files


def default_uri(sweep_dir: Path) -> str:
    """The tracking URI of a database in the sweep's own folder."""
    return f"sqlite:///{(sweep_dir / files.MLFLOW_DB).absolute()}"


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
