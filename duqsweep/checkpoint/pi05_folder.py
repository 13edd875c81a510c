"""Recognises a pi0.5 checkpoint's folder and checks all of it that shows without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duqsweep.checkpoint.io_spec import IoSpec
from duqsweep.checkpoint.layouts import BEFORE, lerobot_io_spec, openpi_io_spec, read_object
from duqsweep.checkpoint.parameters import find_parameters
from duqsweep.checkpoint.safetensors_header import StoredTensor, read_header
from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, sizes_of
from duqsweep.checkpoint.tokenizer import PromptTokenizer, find_tokenizer
from duqsweep.codec import decode
from duqsweep.errors import ConfigError, SpecError

CONFIG_JSON = "config.json"
WEIGHTS = "model.safetensors"
NAME = "pi05_libero"
# Source: openpi, src/openpi/models/gemma.py, get_config.
VARIANTS = {"gemma_2b": sizes_of(NAME).llm, "gemma_300m": sizes_of(NAME).expert}


@dataclass(frozen=True)
class Pi05Folder:
    """A checkpoint that fits, ready to be loaded."""

    weights: Path
    tokenizer: PromptTokenizer
    io_spec: IoSpec
    parameters: dict[str, StoredTensor]  # name in the network → where its values lie


def read_folder(folder: Path, tokenizer: str | None) -> Pi05Folder:
    """Check a folder that openpi or LeRobot wrote.

    Raises:
        ConfigError: A file is missing or damaged, or of another policy.
    """
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ConfigError(f"checkpoint {folder} has no {WEIGHTS}{_hint(folder)}")
    config = _config(folder)
    sizes = _sizes(folder, config)
    try:
        parameters = find_parameters(read_header(weights), sizes)
    except ConfigError as error:
        raise ConfigError(f"checkpoint {folder} does not fit: {error}") from error
    read = lerobot_io_spec if _is_lerobot(folder, config) else openpi_io_spec
    io_spec = read(folder, config, sizes)
    path = find_tokenizer(folder, tokenizer)
    prompts = PromptTokenizer(path, sizes.vocabulary, sizes.prompt_tokens)
    return Pi05Folder(weights, prompts, io_spec, parameters)


def read_sizes(folder: Path) -> PolicySizes:
    """The sizes that a folder's `config.json` states; without one, openpi's pi05_libero.

    openpi and LeRobot name the two Gemma variants there. For a network of other sizes, as tests
    use, the key `sizes` gives all of `PolicySizes`.

    Raises:
        ConfigError: It states none that are known.
    """
    return _sizes(folder, _config(folder))


def _is_lerobot(folder: Path, config: Mapping[str, Any]) -> bool:
    # Only its configurations name a type of policy.
    return (folder / BEFORE).is_file() or "type" in config


def _config(folder: Path) -> dict[str, Any]:
    # openpi's trainer, unlike its converter, writes none.
    return read_object(folder / CONFIG_JSON) if (folder / CONFIG_JSON).exists() else {}


def _sizes(folder: Path, config: Mapping[str, Any]) -> PolicySizes:
    kind = config.get("type", "pi05")
    if kind != "pi05":
        raise ConfigError(f"checkpoint {folder} is a {kind!r}, policy {NAME!r} takes a 'pi05'")
    try:
        if "sizes" in config:
            return decode(PolicySizes, config["sizes"], "sizes")
        full = sizes_of(NAME)
        return replace(
            full,
            llm=_variant(config, "paligemma_variant", "gemma_2b"),
            expert=_variant(config, "action_expert_variant", "gemma_300m"),
            horizon=config.get("chunk_size", config.get("action_horizon", full.horizon)),
            action_dim=config.get("max_action_dim", config.get("action_dim", full.action_dim)),
            prompt_tokens=config.get("tokenizer_max_length", full.prompt_tokens),
        )
    except SpecError as error:
        raise ConfigError(f"{folder / CONFIG_JSON}: {error}") from error


def _variant(config: Mapping[str, Any], key: str, default: str) -> StackSizes:
    name = config.get(key, default)
    if name not in VARIANTS:
        raise SpecError(f"{key} must be one of {list(VARIANTS)}, got {name!r}")
    return VARIANTS[name]


def _hint(folder: Path) -> str:
    if (folder / "params").is_dir():
        return (
            ", but openpi's JAX form in params/: convert it with openpi's "
            "examples/convert_jax_model_to_pytorch.py"
        )
    if (folder / f"{WEIGHTS}.index.json").exists():
        return ", but pieces of it: save it as one file"
    return ""
