"""A chosen trial as a version of a registered model, with its card."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duqsweep.control.tracking.mirror import ask_mlflow
from duqsweep.control.tracking.mlflow_client import default_uri, import_client
from duqsweep.control.tracking.runids import known_runs
from duqsweep.errors import ConfigError
from duqsweep.fingerprint import digest

FOLDER = "model"  # among a run's artifacts
CARD = "README.md"
PLAN = "plan.yaml"
FINGERPRINT_TAG = "duqsweep.fingerprint"
CONTENT_TAG = "duqsweep.content"  # digest of the files
MOST_LETTERS = 4900  # of a description; MLflow's databases take 5,000


@dataclass(frozen=True)
class Registered:
    """A version of a model in MLflow's registry."""

    name: str
    version: str
    is_new: bool


def register(
    sweep_dir: Path,
    uri: str | None,
    number: int,
    name: str,
    fingerprint: str,
    content: dict[str, str],
) -> Registered:
    """Register a trial; the same trial with the same card is one version.

    Args:
        sweep_dir: The folder of a sweep that MLflow has a copy of.
        uri: MLflow's tracking URI; None: the database in the folder.
        number: Of the trial.
        name: Of the model; its versions may come from several sweeps.
        fingerprint: Of the trial.
        content: File name → text; with a `CARD`, which describes the version.

    Raises:
        ConfigError: MLflow has no run of this trial.
        DuqsweepError: MLflow refused, or was not reached.
    """
    known = known_runs(sweep_dir, uri)
    run_id = None if known is None else known["trials"].get(str(number))
    if run_id is None:
        raise ConfigError(f"MLflow has no run of trial {number}: it can be registered after `sync`")
    with ask_mlflow(uri or default_uri(sweep_dir)) as address:
        client = import_client()(tracking_uri=address, registry_uri=address)
        return _register(client, run_id, name, fingerprint, content)


def _register(
    client: Any, run_id: str, name: str, fingerprint: str, content: dict[str, str]
) -> Registered:
    known = client.search_model_versions(f"name = '{name}'")
    stamp = digest(content)
    for version in known:
        if version.run_id == run_id and version.tags.get(CONTENT_TAG) == stamp:
            return Registered(name, str(version.version), is_new=False)
    with tempfile.TemporaryDirectory() as folder:
        for file, text in content.items():
            (Path(folder) / file).write_text(text, encoding="utf-8")
        client.log_artifacts(run_id, folder, FOLDER)
    if not known and not any(model.name == name for model in client.search_registered_models()):
        client.create_registered_model(name)
    made = client.create_model_version(
        name,
        source=f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}",
        run_id=run_id,
        tags={FINGERPRINT_TAG: fingerprint, CONTENT_TAG: stamp},
        description=_described(content[CARD]),
    )
    return Registered(name, str(made.version), is_new=True)


def _described(card: str) -> str:
    """What people read of a card: without the data at its top."""
    _, _, body = card.rpartition("\n---\n")
    return body.strip()[:MOST_LETTERS]
