"""Where a policy's checkpoint lies, and whether it is there and fits; needs no torch."""

from __future__ import annotations

from pathlib import Path

from duqsweep.checkpoint.embedded_config import read_embedded
from duqsweep.checkpoint.pi05_config import CONFIG_JSON, read_sizes
from duqsweep.checkpoint.pi05_folder import read_folder
from duqsweep.checkpoint.sizes import PolicySizes, sizes_of
from duqsweep.errors import ConfigError
from duqsweep.spec import PolicySpec

WEIGHTS = "weights.safetensors"  # of an embedded policy
SHIPPED = Path(__file__).parent.parent / "policy" / "embedded"


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


def policy_sizes(spec: PolicySpec) -> PolicySizes:
    """The sizes that a policy's checkpoint states; where it states none, those of the name.

    Raises:
        ConfigError: The policy is unknown, or its checkpoint states no known sizes.
    """
    sizes = sizes_of(spec.name)
    if spec.checkpoint is None:
        return sizes
    folder = Path(spec.checkpoint)
    if spec.name != "embedded":
        return read_sizes(folder)
    path = folder / CONFIG_JSON
    return read_embedded(path).sizes if path.exists() else sizes


def check_checkpoint(spec: PolicySpec) -> None:
    """Raise ConfigError unless the policy's files are there and this version can read them."""
    folder = checkpoint_dir(spec)
    if not folder.is_dir():
        raise ConfigError(f"policy.checkpoint must be a folder, there is none at {folder}")
    if spec.name != "embedded":
        read_folder(folder, spec.tokenizer)
        return
    if spec.tokenizer is not None:
        raise ConfigError("policy.tokenizer is a pi0.5's; the embedded policy has words of its own")
    read_embedded(folder / CONFIG_JSON)
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(f"checkpoint {folder} has no {WEIGHTS}")
