"""`config.json` of a pi0.5 checkpoint: the keys that are read, by openpi's names and by LeRobot's.

Sources: openpi, examples/convert_jax_model_to_pytorch.py and src/openpi/models/gemma.py
(get_config); lerobot 0.6.1, policies/pi05/configuration_pi05.py and configs/policies.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from duqsweep.checkpoint.json_file import decode_known, read_object
from duqsweep.checkpoint.sizes import PolicySizes, sizes_of
from duqsweep.errors import ConfigError, SpecError
from duqsweep.setting import declared_settings
from duqsweep.spec import PolicySpec

CONFIG_JSON = "config.json"
BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"  # only LeRobot writes them
NAME = "pi05_libero"
VARIANTS = {"gemma_2b": sizes_of(NAME).llm, "gemma_300m": sizes_of(NAME).expert}
Variant = Literal["gemma_2b", "gemma_300m"]

# Of LeRobot's other keys, those that resemble one that is read.
LEROBOT_OTHERS = ("dtype", "output_features")


@dataclass(frozen=True)
class Distilled:
    """What a distilled student's `config.json` says beside its teacher's keys; they are our own.

    No author has published a format, and SnapFlow (arXiv:2604.05656) no weights. Its target time
    has an MLP like the time's, whose output is added to the condition.
    """

    distilled_steps: tuple[int, ...] = ()  # the numbers of denoising steps it was trained for
    target_time: bool = False  # it is told where a step ends: `target_time_mlp_in` and `_out`

    def __post_init__(self) -> None:
        if self.target_time and not self.distilled_steps:
            raise SpecError("target_time needs distilled_steps, the numbers of steps, e.g. [1]")
        for steps in self.distilled_steps:
            declared_settings(PolicySpec)["num_steps"].check("distilled_steps", steps)


@dataclass(frozen=True)
class OpenpiConfig(Distilled):
    """What openpi's converter writes, and three keys that may be added to it.

    Two are settings of its training: `discrete_state_input` (false in openpi's pi05_libero) and
    `use_quantile_norm` (true for every pi0.5). `sizes` gives all of `PolicySizes` for a network
    of other sizes, as tests use.
    """

    paligemma_variant: Variant = "gemma_2b"
    action_expert_variant: Variant = "gemma_300m"
    action_horizon: int = sizes_of(NAME).horizon
    action_dim: int = sizes_of(NAME).action_dim
    discrete_state_input: bool = False
    use_quantile_norm: bool = True
    sizes: PolicySizes | None = None

    def policy_sizes(self) -> PolicySizes:
        """The sizes that it states."""
        sizes = self.sizes or replace(
            sizes_of(NAME),
            llm=VARIANTS[self.paligemma_variant],
            expert=VARIANTS[self.action_expert_variant],
            horizon=self.action_horizon,
            action_dim=self.action_dim,
        )
        return replace(sizes, target_time=self.target_time)


@dataclass(frozen=True)
class LerobotConfig(Distilled):
    """What LeRobot writes, with its defaults; `sizes` may be added as for openpi."""

    type: Literal["pi05"] = "pi05"
    paligemma_variant: Variant = "gemma_2b"
    action_expert_variant: Variant = "gemma_300m"
    chunk_size: int = 50
    max_action_dim: int = 32
    tokenizer_max_length: int = 200
    use_relative_actions: bool = False
    input_features: dict[str, dict[str, Any]] | None = None
    sizes: PolicySizes | None = None

    def policy_sizes(self) -> PolicySizes:
        """The sizes that it states."""
        sizes = self.sizes or replace(
            sizes_of(NAME),
            llm=VARIANTS[self.paligemma_variant],
            expert=VARIANTS[self.action_expert_variant],
            horizon=self.chunk_size,
            action_dim=self.max_action_dim,
            prompt_tokens=self.tokenizer_max_length,
        )
        return replace(sizes, target_time=self.target_time)


def read_config(folder: Path) -> OpenpiConfig | LerobotConfig:
    """The `config.json` of a folder; openpi's pi05_libero where it has none.

    Raises:
        ConfigError: It is of another policy; a key is misspelt or a value has another type.
    """
    path = folder / CONFIG_JSON
    # openpi's trainer, unlike its converter, writes none.
    data = read_object(path) if path.exists() else {}
    # Only LeRobot's configurations name a type of policy.
    if "type" not in data and not (folder / BEFORE).is_file():
        return decode_known(OpenpiConfig, data, str(path))
    if data.get("type", "pi05") != "pi05":
        raise ConfigError(
            f"checkpoint {folder} is a {str(data['type'])[:80]!r}, policy {NAME!r} takes a 'pi05'"
        )
    return decode_known(LerobotConfig, data, str(path), LEROBOT_OTHERS)


def read_sizes(folder: Path) -> PolicySizes:
    """The sizes that a folder's `config.json` states; without one, openpi's pi05_libero.

    Raises:
        ConfigError: As `read_config`; or the sizes are impossible.
    """
    config = read_config(folder)
    try:
        return config.policy_sizes()
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG_JSON}: {error}") from error
