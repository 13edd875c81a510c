"""Recognises a pi0.5 checkpoint's folder and checks all of it that shows without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from duqsweep.checkpoint.io_spec import IoSpec
from duqsweep.checkpoint.layouts import lerobot_io_spec, openpi_io_spec
from duqsweep.checkpoint.parameters import find_parameters
from duqsweep.checkpoint.pi05_config import LerobotConfig, read_config, read_sizes
from duqsweep.checkpoint.safetensors_header import StoredTensor, read_header
from duqsweep.checkpoint.tokenizer import GEMMA_PIECES, PromptTokenizer, find_tokenizer
from duqsweep.errors import ConfigError

WEIGHTS = "model.safetensors"


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
    config = read_config(folder)
    sizes = read_sizes(folder)
    try:
        parameters = find_parameters(read_header(weights), sizes)
    except ConfigError as error:
        raise ConfigError(f"checkpoint {folder} does not fit: {error}") from error
    if isinstance(config, LerobotConfig):
        io_spec = lerobot_io_spec(folder, config)
    else:
        io_spec = openpi_io_spec(folder, config)
    path = find_tokenizer(folder, tokenizer)
    fewest = GEMMA_PIECES if config.sizes is None else 1
    prompts = PromptTokenizer(path, sizes.vocabulary, sizes.prompt_tokens, fewest)
    return Pi05Folder(weights, prompts, io_spec, parameters)


def _hint(folder: Path) -> str:
    if (folder / "params").is_dir():
        return (
            ", but openpi's JAX form in params/: convert it with openpi's "
            "examples/convert_jax_model_to_pytorch.py"
        )
    if (folder / f"{WEIGHTS}.index.json").exists():
        return ", but pieces of it: save it as one file"
    return ""
