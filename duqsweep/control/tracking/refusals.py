"""What MLflow's stores say for good: the user has to mend it, and no later try will help."""

from __future__ import annotations

import re
import socket
import sqlite3
from collections.abc import Iterator

from duqsweep import files
from duqsweep.control.tracking.mlflow_client import check_database, import_client
from duqsweep.control.tracking.tables import database_path
from duqsweep.errors import ConfigError, DuqsweepError
from duqsweep.masking import masked

_REFUSED = {
    **dict.fromkeys((301, 302, 303, 307, 308), "it sends to another address"),
    401: "it asks for a user and a password (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)",
    403: "access is forbidden",
    404: "there is no MLflow at this address",
    405: "there is no MLflow at this address",
}
_NO_MLFLOW = "not in a valid JSON format"  # what its client says of another server's page
_STATUS = re.compile(r"error code (\d{3}) != 200")
_DAMAGED = "database disk image is malformed"  # by a computer that went down, say
_PASSING = ("locked", "busy", "disk i/o", "disk is full")  # what SQLite says


def check_server(uri: str) -> None:
    """Ask a server, or look at a database, once, before a sweep begins.

    A server that is silent or out of order may be back before the sweep ends, so it is not an
    error.

    Args:
        uri: MLflow's tracking URI.

    Raises:
        ConfigError: It refuses, and will do so again.
    """
    try:
        check_database(uri)
        if uri.startswith(("http://", "https://")):
            import_client()(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow passes on whatever its stores raise
        reason = refusal(error)
        if reason is not None:
            raise ConfigError(
                f"MLflow at {masked(uri)} refuses: {reason}; tracking=none does without"
            ) from error


def refusal(error: BaseException) -> str | None:
    """Why a store of MLflow will refuse again; None where it may take the same later."""
    for cause in _causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there"
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            return "there is no such host"
        if isinstance(cause, sqlite3.Error) and not any(
            word in str(cause).lower() for word in _PASSING
        ):
            return str(cause)
        if _NO_MLFLOW in str(cause):
            return _REFUSED[404]
        status = _STATUS.search(str(cause))
        if status is not None and int(status[1]) in _REFUSED:
            return f"{_REFUSED[int(status[1])]} ({status[1]})"
    return None


def refused_or_failed(uri: str, error: BaseException) -> DuqsweepError:
    """What to raise in place of an error of MLflow: in one line, ConfigError if it is for good."""
    said = masked(" ".join(str(error).split())[:300]) or type(error).__name__
    database = database_path(uri)
    if database is not None and database.name == files.MLFLOW_DB and _DAMAGED in said:
        said = f"{_DAMAGED}: delete {database} and sync again"
    kind = DuqsweepError if refusal(error) is None else ConfigError
    return kind(f"MLflow at {masked(uri)} cannot take the copy: {said}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and all that it comes from or wraps, each once."""
    left, seen = [error], set()
    while left:
        cause = left.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        wrapped = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        left += [other for other in wrapped if isinstance(other, BaseException)]
