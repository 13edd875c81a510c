"""`config.json` of the embedded policy: its sizes, its words and how its numbers are scaled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from duqsweep.checkpoint.io_spec import ACTIONS, STATE_BINS
from duqsweep.checkpoint.json_file import read_object
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.codec import decode
from duqsweep.errors import ConfigError, SpecError

STATE_VALUES = 11  # position 3, rotation 6, fingers 2


@dataclass(frozen=True)
class EmbeddedConfig:
    """What the embedded policy's weights need beside them."""

    sizes: PolicySizes
    words: tuple[str, ...]  # token id = index; words[0] is padding
    text_tokens: int  # an instruction is filled up to this many
    state_low: tuple[float, ...]  # lower edge of the first bin of each state value
    state_high: tuple[float, ...]
    action_mean: tuple[float, ...]
    action_std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.state_low) != STATE_VALUES or len(self.state_high) != STATE_VALUES:
            raise SpecError(f"state_low and state_high must have {STATE_VALUES} values")
        if len(self.action_mean) != ACTIONS or len(self.action_std) != ACTIONS:
            raise SpecError(f"action_mean and action_std must have {ACTIONS} values")
        scales = (*self.state_low, *self.state_high, *self.action_mean, *self.action_std)
        if not all(map(math.isfinite, scales)):
            raise SpecError("state_low, state_high, action_mean and action_std must be finite")
        bins = zip(self.state_low, self.state_high, strict=True)
        if min(self.action_std) <= 0 or any(low >= high for low, high in bins):
            raise SpecError("action_std and state_high - state_low must be positive")
        if self.sizes.vocabulary < self.first_bin + STATE_VALUES * STATE_BINS:
            raise SpecError(f"{len(self.words)} words do not fit a vocabulary of these sizes")
        if self.text_tokens + STATE_VALUES > self.sizes.prompt_tokens:
            raise SpecError(f"text_tokens must leave room for {STATE_VALUES} state tokens")

    @property
    def first_bin(self) -> int:
        """Token id of the first state value's first bin: all bins end the vocabulary."""
        return max(self.sizes.vocabulary - STATE_VALUES * STATE_BINS, len(self.words))


def read_embedded(path: Path) -> EmbeddedConfig:
    """The `config.json` of an embedded policy.

    Raises:
        ConfigError: It is missing or damaged; the message names file and key.
    """
    try:
        return decode(EmbeddedConfig, read_object(path))
    except SpecError as error:
        raise ConfigError(f"{path}: {error}") from error
