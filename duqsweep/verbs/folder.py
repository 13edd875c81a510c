"""A sweep's folder as an argument of a verb."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from duqsweep import files
from duqsweep.control.config.addresses import check_folder, check_sqlite
from duqsweep.control.config.compose import explain
from duqsweep.control.config.schema import schema
from duqsweep.control.config.sweep_config import SweepConfig, to_config
from duqsweep.control.front.content import compute_front, look_at
from duqsweep.control.front.importance import Importance, write_importances
from duqsweep.control.front.records import Front
from duqsweep.control.front.stored import Look
from duqsweep.control.sweep_format import check_format
from duqsweep.control.trials.reader import TrialView
from duqsweep.errors import ConfigError


def sweep_config(directory: Path) -> SweepConfig:
    """The sweep that lies in `directory`, from its sweep.yaml.

    Raises:
        ConfigError: It is not a sweep's folder, or its files have another format.
    """
    path = directory / files.SWEEP_YAML
    if not path.is_file():
        raise ConfigError(
            f"{directory} is not a sweep's folder: it has no {files.SWEEP_YAML}; "
            "sweeps lie in sweeps/<name>"
        )
    check_format(directory)
    try:
        loaded = OmegaConf.load(path)
        config = OmegaConf.merge(schema(), loaded)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not of this version of duqsweep: {explain(error)}") from error
    assert isinstance(config, DictConfig)
    if config.name is None:
        raise ConfigError(f"{path} is no sweep's configuration: it has no name")
    return replace(to_config(config), directory=directory.absolute())


def sweep_look(config: SweepConfig) -> Look:
    """The front and the trials of a sweep as its files show them now."""
    return look_at(config.directory, config.objectives, config.margin)


def sweep_front(config: SweepConfig, views: Sequence[TrialView] | None = None) -> Front:
    """The front of a sweep as its files show it now; `views` are its trials, if just read."""
    if views is None:
        return sweep_look(config).front
    return compute_front(config.directory, config.objectives, views, config.margin)


def explained_front(config: SweepConfig, views: Sequence[TrialView]) -> Front:
    """The same front with the importances of all parameters as they are now, which takes seconds.

    Nothing is written.
    """
    return replace(sweep_front(config, views), importances=_importances(config, views))


def keep_explained_front(
    config: SweepConfig,
    views: Sequence[TrialView],
    importances: tuple[Importance, ...] | None = None,
) -> Front:
    """The same; front.json, importances.json and what front.json comes from are written.

    Args:
        config: Of the sweep.
        views: Its trials.
        importances: Of all parameters, where they are known already.
    """
    from duqsweep.control.sweep_files import FrontFiles

    importances = _importances(config, views) if importances is None else importances
    write_importances(config.directory, importances)
    keeper = FrontFiles(config.directory, config.objectives, margin=config.margin)
    front = keeper.update(views, final=True)
    assert front is not None
    return front


def _importances(config: SweepConfig, views: Sequence[TrialView]) -> tuple[Importance, ...]:
    # Imported here: SciPy's optimiser is slow to import, and most verbs do without.
    from duqsweep.control.config.space import Space
    from duqsweep.control.kghv.importances import importances

    return importances(Space.from_config(config), views)


def tracking_uri(config: SweepConfig) -> str | None:
    """Where MLflow's copy goes; None: a database in the folder.

    Raises:
        ConfigError: A server is wanted, and none is named; or a database has an impossible address.
    """
    if config.tracking.name == "none":
        return None
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if config.tracking.name == "server" and not uri:
        raise ConfigError("tracking=server needs tracking.uri=… or MLFLOW_TRACKING_URI")
    if not uri:
        check_folder(config.directory)
        return None
    check_sqlite(uri, "tracking.uri")
    return uri
