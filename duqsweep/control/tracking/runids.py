"""`tracking.json`: which runs of MLflow are this sweep's."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.control.tracking.mlflow_client import default_uri
from duqsweep.fingerprint import digest


def sweep_key(sweep_dir: Path) -> str:
    """What tells this sweep from every other on a shared server; made once, kept in its folder."""
    path = sweep_dir / files.TRACKING_JSON
    if not path.exists():
        files.write_json(path, {"key": uuid.uuid4().hex[:16], "links": {}})
    key: str = files.read_json(path)["key"]
    return key


def known_runs(sweep_dir: Path, uri: str | None) -> Mapping[str, Any] | None:
    """Ids in MLflow: `experiment`, `parent` and `trials`; None before the first update."""
    path = sweep_dir / files.TRACKING_JSON
    if not path.exists():
        return None
    links: Mapping[str, Any] = files.read_json(path)["links"]
    return links.get(digest(uri or default_uri(sweep_dir)))


def remember_runs(sweep_dir: Path, uri: str, ids: Mapping[str, Any]) -> None:
    """Keep the ids that `known_runs` returns; the key must have been made."""
    path = sweep_dir / files.TRACKING_JSON
    state = files.read_json(path)
    if state["links"].get(digest(uri)) != ids:
        state["links"][digest(uri)] = ids  # the address itself may hold a password
        files.write_json(path, state)
