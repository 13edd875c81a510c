"""Reads what stands beside the weights in a pi0.5 checkpoint's folder: openpi's, or LeRobot's.

Sources: openpi, examples/convert_jax_model_to_pytorch.py (config.json, assets/), its
src/openpi/shared/normalize.py (norm_stats.json) and src/openpi/training/config.py (pi05_libero);
lerobot 0.6.1, policies/pi05 and processor/pipeline.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from duqsweep.checkpoint.io_spec import ACTIONS, CAMERAS, STATE_VALUES, IoSpec
from duqsweep.checkpoint.normalise import Affine, Stats, lerobot_affine, openpi_affine
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.errors import ConfigError, EvaluationError
from duqsweep.files import read_json

NORM_STATS = "norm_stats.json"
BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
# LeRobot's names of LIBERO's two cameras (lerobot 0.6.1, envs/configs.py, LiberoEnv).
LEROBOT_CAMERAS = {"observation.images.image": "agentview", "observation.images.image2": "wrist"}
MASKED = ("empty_camera", "right_wrist_0_rgb")  # cameras that a LIBERO policy is trained without


def openpi_io_spec(folder: Path, config: Mapping[str, Any], sizes: PolicySizes) -> IoSpec:
    """The io spec of a checkpoint that openpi wrote.

    Two settings of its training are not in openpi's config.json and may be added to it:
    `discrete_state_input` (without it false, as in openpi's pi05_libero) and `use_quantile_norm`
    (without it true, as for every pi0.5).

    Raises:
        ConfigError: The statistics are missing, ambiguous or incomplete.
    """
    found = sorted((folder / "assets").glob(f"**/{NORM_STATS}"))
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
        raise ConfigError(
            f"checkpoint {folder} must have one file of normalisation statistics, "
            f"assets/…/{NORM_STATS}; there are: {names}"
        )
    quantiles = bool(config.get("use_quantile_norm", True))
    state, actions = (
        _openpi_affine(found[0], of, count, quantiles)
        for of, count in (("state", STATE_VALUES), ("actions", ACTIONS))
    )
    in_prompt = bool(config.get("discrete_state_input", False))
    # Pictures are made smaller by PIL: openpi-client's image_tools.resize_with_pad.
    return IoSpec(sizes, CAMERAS, True, in_prompt, state, actions)


def lerobot_io_spec(folder: Path, config: Mapping[str, Any], sizes: PolicySizes) -> IoSpec:
    """The io spec of a checkpoint that LeRobot wrote.

    Raises:
        ConfigError: A file or statistics are missing, or it was trained on what LIBERO has not.
    """
    if config.get("use_relative_actions"):
        raise ConfigError(f"{folder}: use_relative_actions is true; LIBERO's actions are relative")
    before, after = _steps(folder / BEFORE), _steps(folder / AFTER)
    if "pi05_prepare_state_tokenizer_processor_step" not in before:
        raise ConfigError(f"{folder / BEFORE} has no step that writes pi0.5's prompt")
    renamed = before.get("rename_observations_processor", {}).get("config", {})
    return IoSpec(
        sizes=sizes,
        cameras=_lerobot_cameras(folder, config, renamed.get("rename_map", {})),
        antialias=False,  # vla_utils.resize_with_pad_torch
        state_in_prompt=True,
        state=_lerobot_affine(folder / BEFORE, before, "STATE"),
        actions=_lerobot_affine(folder / AFTER, after, "ACTION"),
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ConfigError: There is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ConfigError(f"checkpoint {path.parent} has no {path.name}")
    try:
        data = read_json(path)
    except EvaluationError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold an object")
    return data


def _openpi_affine(path: Path, of: str, count: int, quantiles: bool) -> Affine:
    entry = read_object(path).get("norm_stats", {}).get(of)
    if not isinstance(entry, dict):
        raise ConfigError(f"{path} has no statistics of {of!r}")
    stats = {name: np.array(values, np.float64) for name, values in entry.items() if values}
    try:
        return openpi_affine(stats, count, quantiles)
    except ConfigError as error:
        raise ConfigError(f"{path}, statistics of {of!r}: {error}") from error


def _steps(path: Path) -> dict[str, dict[str, Any]]:
    steps = read_object(path).get("steps", [])
    return {str(step.get("registry_name")): step for step in steps}


def _lerobot_affine(path: Path, steps: Mapping[str, dict[str, Any]], kind: str) -> Affine:
    inverse = kind == "ACTION"
    name = "unnormalizer_processor" if inverse else "normalizer_processor"
    feature, count = ("action", ACTIONS) if inverse else ("observation.state", STATE_VALUES)
    step = steps.get(name)
    if step is None or not (path.parent / step.get("state_file", "")).is_file():
        raise ConfigError(f"{path} has no normalisation statistics: no {name} with its state_file")
    config = step["config"]
    stats = _lerobot_stats(path.parent / step["state_file"], feature)
    try:
        mode = str(config.get("norm_map", {}).get(kind))
        return lerobot_affine(stats, count, mode, float(config["eps"]), inverse)
    except ConfigError as error:
        raise ConfigError(f"{path}, statistics of {feature!r}: {error}") from error


def _lerobot_stats(path: Path, feature: str) -> Stats:
    try:
        arrays = cast(Stats, load_file(path))
    except SafetensorError as error:
        raise ConfigError(f"{path} is not a safetensors file: {error}") from error
    return {
        name.removeprefix(f"{feature}."): values.astype(np.float64)
        for name, values in arrays.items()
        if name.rpartition(".")[0] == feature
    }


def _lerobot_cameras(
    folder: Path, config: Mapping[str, Any], renamed: Mapping[str, str]
) -> tuple[str, ...]:
    features = config.get("input_features", {})
    visual = [name for name, feature in features.items() if feature.get("type") == "VISUAL"]
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
