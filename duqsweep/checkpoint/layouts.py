"""Reads what stands beside the weights in a pi0.5 checkpoint's folder: openpi's, or LeRobot's.

Sources: openpi, examples/convert_jax_model_to_pytorch.py (assets/), its
src/openpi/shared/normalize.py (norm_stats.json) and src/openpi/training/config.py (pi05_libero);
lerobot 0.6.1, policies/pi05 and processor/pipeline.py.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from duqsweep.checkpoint.io_spec import ACTIONS, CAMERAS, STATE_VALUES, IoSpec
from duqsweep.checkpoint.json_file import decode_known, read_object
from duqsweep.checkpoint.normalise import Affine, Stats, lerobot_affine, openpi_affine
from duqsweep.checkpoint.pi05_config import (
    AFTER,
    BEFORE,
    CONFIG_JSON,
    LerobotConfig,
    OpenpiConfig,
)
from duqsweep.errors import ConfigError, SpecError

NORM_STATS = "norm_stats.json"
# LeRobot's names of LIBERO's two cameras (lerobot 0.6.1, envs/configs.py, LiberoEnv).
LEROBOT_CAMERAS = {"observation.images.image": "agentview", "observation.images.image2": "wrist"}
MASKED = ("empty_camera", "right_wrist_0_rgb")  # cameras that a LIBERO policy is trained without
# lerobot 0.6.1, configs/types.py, FeatureType
FEATURE_TYPES = ("ACTION", "ENV", "LANGUAGE", "REWARD", "STATE", "VISUAL")


@dataclass(frozen=True)
class _NormStatsFile:
    norm_stats: dict[str, Any]


@dataclass(frozen=True)
class _NormStats:
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    q01: tuple[float, ...] | None = None
    q99: tuple[float, ...] | None = None


@dataclass(frozen=True)
class _Pipeline:
    steps: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _Step:
    registry_name: str | None = None  # a step that is not registered has its class instead
    config: dict[str, Any] = field(default_factory=dict)
    state_file: str | None = None


@dataclass(frozen=True)
class _Normaliser:
    eps: float
    norm_map: dict[str, str]


@dataclass(frozen=True)
class _Rename:
    rename_map: dict[str, str]


def openpi_io_spec(folder: Path, config: OpenpiConfig) -> IoSpec:
    """The io spec of a checkpoint that openpi wrote.

    Raises:
        ConfigError: The statistics are missing, ambiguous, incomplete or malformed.
    """
    found = sorted((folder / "assets").glob(f"**/{NORM_STATS}"))
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
        raise ConfigError(
            f"checkpoint {folder} must have one file of normalisation statistics, "
            f"assets/…/{NORM_STATS}; there are: {names}"
        )
    state, actions = (
        _openpi_affine(found[0], of, count, config.use_quantile_norm)
        for of, count in (("state", STATE_VALUES), ("actions", ACTIONS))
    )
    # Pictures are made smaller by PIL: openpi-client's image_tools.resize_with_pad.
    spec = (config.policy_sizes(), CAMERAS, True, config.discrete_state_input, state, actions)
    return _io_spec(folder, *spec)


def lerobot_io_spec(folder: Path, config: LerobotConfig) -> IoSpec:
    """The io spec of a checkpoint that LeRobot wrote.

    Raises:
        ConfigError: A file or statistics are missing or malformed, or it was trained on what LIBERO
            has not.
    """
    if config.use_relative_actions:
        raise ConfigError(f"{folder}: use_relative_actions is true; LIBERO's actions are relative")
    before, after = _steps(folder / BEFORE), _steps(folder / AFTER)
    if "pi05_prepare_state_tokenizer_processor_step" not in before:
        raise ConfigError(f"{folder / BEFORE} has no step that writes pi0.5's prompt")
    return _io_spec(
        folder,
        config.policy_sizes(),
        _lerobot_cameras(folder, config, before),
        False,  # vla_utils.resize_with_pad_torch does not antialias
        True,
        _lerobot_affine(folder / BEFORE, before, "STATE"),
        _lerobot_affine(folder / AFTER, after, "ACTION"),
    )


def _io_spec(folder: Path, *values: Any) -> IoSpec:
    try:
        return IoSpec(*values)
    except SpecError as error:
        raise ConfigError(f"{folder / CONFIG_JSON}: {error}") from error


def _openpi_affine(path: Path, of: str, count: int, quantiles: bool) -> Affine:
    held = decode_known(_NormStatsFile, read_object(path), str(path)).norm_stats
    where = f"{path}, statistics of {of!r}"
    if held.get(of) is None:
        raise ConfigError(f"{path} has no statistics of {of!r}, only of {sorted(held)}")
    if not isinstance(held[of], dict):
        raise ConfigError(f"{where} must be an object with mean, std, q01 and q99")
    entry = vars(decode_known(_NormStats, held[of], where))
    stats = {name: np.array(values) for name, values in entry.items() if values is not None}
    try:
        return openpi_affine(stats, count, quantiles)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _steps(path: Path) -> dict[str, _Step]:
    """The steps of one of LeRobot's pipelines by their registered names."""
    steps = {}
    for i, data in enumerate(decode_known(_Pipeline, read_object(path), str(path)).steps):
        step = decode_known(_Step, data, f"{path}, steps[{i}]")
        steps[step.registry_name or ""] = step
    return steps


def _lerobot_affine(path: Path, steps: Mapping[str, _Step], kind: str) -> Affine:
    inverse = kind == "ACTION"
    name = "unnormalizer_processor" if inverse else "normalizer_processor"
    feature, count = ("action", ACTIONS) if inverse else ("observation.state", STATE_VALUES)
    step = steps.get(name)
    # isfile: false for whatever cannot be a file's name
    if step is None or not os.path.isfile(path.parent / (step.state_file or "")):
        raise ConfigError(f"{path} has no normalisation statistics: no {name} with its state_file")
    settings = decode_known(_Normaliser, step.config, f"{path}, config of {name}")
    mode = settings.norm_map.get(kind)
    if mode is None:
        raise ConfigError(
            f"{path}, config of {name}: norm_map has no {kind!r}, only {sorted(settings.norm_map)}"
        )
    stats = _lerobot_stats(path.parent / str(step.state_file), feature)
    try:
        return lerobot_affine(stats, count, mode, settings.eps, inverse)
    except ConfigError as error:
        raise ConfigError(f"{path}, statistics of {feature!r}: {error}") from error


def _lerobot_stats(path: Path, feature: str) -> Stats:
    try:
        arrays = cast(Stats, load_file(path))
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that numpy does not have
        raise ConfigError(f"{path} is not a safetensors file: {error}") from error
    return {
        name.removeprefix(f"{feature}."): values.astype(np.float64)
        for name, values in arrays.items()
        if name.rpartition(".")[0] == feature
    }


def _lerobot_cameras(
    folder: Path, config: LerobotConfig, steps: Mapping[str, _Step]
) -> tuple[str, ...]:
    """LIBERO's cameras in the order in which the policy was trained on them."""
    renamed: Mapping[str, str] = {}
    if "rename_observations_processor" in steps:
        where = f"{folder / BEFORE}, config of rename_observations_processor"
        step = steps["rename_observations_processor"]
        renamed = decode_known(_Rename, step.config, where).rename_map
    features = config.input_features or {}
    types = {name: _type(folder, name, feature) for name, feature in features.items()}
    visual = [name for name, kind in types.items() if kind == "VISUAL"]
    known = {renamed.get(name, name): camera for name, camera in LEROBOT_CAMERAS.items()}
    strange = [
        name for name in visual if name not in known and not any(part in name for part in MASKED)
    ]
    cameras = tuple(known[name] for name in visual if name in known)
    if strange or not cameras:
        raise ConfigError(
            f"{folder}: the cameras of input_features must be {' and '.join(known)}, "
            f"and masked ones named {' or '.join(MASKED)}; got {visual}"
        )
    return cameras


def _type(folder: Path, name: str, feature: Mapping[str, Any]) -> str:
    """The type of an input feature; one that later versions add is let through."""
    kind = feature.get("type")
    alike = isinstance(kind, str) and difflib.get_close_matches(kind.upper(), FEATURE_TYPES, 1)
    if not isinstance(kind, str) or (alike and kind not in FEATURE_TYPES):
        raise ConfigError(
            f"{folder / CONFIG_JSON}: input_features.{name}.type must be one of "
            f"{list(FEATURE_TYPES)}, got {str(kind)[:80]!r}"
        )
    return kind
