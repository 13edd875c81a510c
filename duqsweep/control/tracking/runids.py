"""`tracking.json`: which runs of MLflow are this sweep's."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.control.tracking.mlflow_client import default_uri
from duqsweep.errors import ConfigError
from duqsweep.fingerprint import digest
from duqsweep.masking import masked

KEYS = ("key", "links")  # of tracking.json; `target` is the third


def sweep_key(sweep_dir: Path) -> str:
    """What tells this sweep from every other on a shared server; made once, kept in its folder."""
    path = sweep_dir / files.TRACKING_JSON
    if not path.exists():
        files.write_json(path, {"key": uuid.uuid4().hex[:16], "links": {}})
    key: str = files.read_object(path, KEYS)["key"]
    return key


def remember_target(sweep_dir: Path, uri: str) -> None:
    """Keep where the sweep's copy goes, so that no later call puts another elsewhere."""
    sweep_key(sweep_dir)
    path = sweep_dir / files.TRACKING_JSON
    state = files.read_object(path, KEYS)
    target = {"digest": digest(uri), "shown": masked(uri)}
    if state.get("target") != target:
        files.write_json(path, {**state, "target": target})


def check_target(sweep_dir: Path, uri: str) -> None:
    """Raise ConfigError when the sweep's copy goes somewhere else than to `uri`."""
    path = sweep_dir / files.TRACKING_JSON
    target = files.read_object(path, KEYS).get("target") if path.exists() else None
    if target is not None and target["digest"] != digest(uri):
        raise ConfigError(
            f"MLflow's copy of this sweep goes to {target['shown']}, not to {masked(uri)}: set "
            "MLFLOW_TRACKING_URI as it was, or name another place with --uri"
        )


def known_runs(sweep_dir: Path, uri: str | None) -> Mapping[str, Any] | None:
    """Ids in MLflow: `experiment`, `parent` and `trials`; None before the first update."""
    path = sweep_dir / files.TRACKING_JSON
    if not path.exists():
        return None
    links: Mapping[str, Any] = files.read_object(path, KEYS)["links"]
    return links.get(digest(uri or default_uri(sweep_dir)))


def remember_runs(sweep_dir: Path, uri: str, ids: Mapping[str, Any]) -> None:
    """Keep the ids that `known_runs` returns; the key must have been made."""
    path = sweep_dir / files.TRACKING_JSON
    state = files.read_object(path, KEYS)
    if state["links"].get(digest(uri)) != ids:
        state["links"][digest(uri)] = ids  # the address itself may hold a password
        files.write_json(path, state)
