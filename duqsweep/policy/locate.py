"""Where a policy's checkpoint lies, and whether it is there; needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from duqsweep.errors import ConfigError
from duqsweep.policy.sizes import sizes_of
from duqsweep.spec import PolicySpec

CONFIG_JSON = "config.json"
WEIGHTS = "weights.safetensors"
SHIPPED = Path(__file__).parent / "embedded"


def checkpoint_dir(spec: PolicySpec) -> Path:
    """The folder that holds the policy's files.

    Raises:
        ConfigError: The policy is unknown, or needs a checkpoint and names none.
    """
    sizes_of(spec.name)
    if spec.checkpoint is not None:
        return Path(spec.checkpoint)
    if spec.name != "embedded":
        raise ConfigError(f"policy {spec.name!r} ships no weights: set policy.checkpoint=FOLDER")
    return SHIPPED


def check_checkpoint(spec: PolicySpec) -> None:
    """Raise ConfigError unless the policy's files are there and this version can read them."""
    folder = checkpoint_dir(spec)
    if not folder.is_dir():
        raise ConfigError(f"policy.checkpoint must be a folder, there is none at {folder}")
    if spec.name != "embedded":
        raise ConfigError(
            f"policy {spec.name!r} cannot be loaded yet: its sizes and network are here, "
            "its tokenizer and normalisation are not; use policy=embedded"
        )
    for name in (CONFIG_JSON, WEIGHTS):
        if not (folder / name).is_file():
            raise ConfigError(f"checkpoint {folder} has no {name}")


def weights_id(spec: PolicySpec) -> str:
    """First 16 hex digits of the SHA-256 of the weights file: what packs of it are keyed by."""
    sha = hashlib.sha256()
    with (checkpoint_dir(spec) / WEIGHTS).open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()[:16]
