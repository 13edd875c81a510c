"""How a pi0.5 checkpoint wants its inputs, and what its outputs mean."""

from __future__ import annotations

from dataclasses import dataclass

from duqsweep.checkpoint.normalise import Affine
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.errors import SpecError

CAMERAS = ("agentview", "wrist")
# LIBERO's state: position 3, axis and angle 3, fingers 2. Source: openpi, examples/libero/main.py.
STATE_VALUES = 8
STATE_BINS = 256  # openpi, src/openpi/models/tokenizer.py, PaligemmaTokenizer.tokenize
# Source: openpi, src/openpi/policies/libero_policy.py, LiberoOutputs; the rest is padding.
ACTIONS = 7


@dataclass(frozen=True)
class IoSpec:
    """All that stands in a checkpoint's folder beside weights and tokenizer."""

    sizes: PolicySizes
    cameras: tuple[str, ...]  # in the order of the prefix; others were masked in training
    antialias: bool  # whether pictures are averaged where they are made smaller
    state_in_prompt: bool
    state: Affine  # 8 values
    actions: Affine  # 7 values

    def __post_init__(self) -> None:
        if not self.cameras or set(self.cameras) - set(CAMERAS):
            raise SpecError(f"cameras must be some of {list(CAMERAS)}, got {list(self.cameras)}")
        if len(self.state.centre) != STATE_VALUES or len(self.actions.centre) != ACTIONS:
            raise SpecError(f"state must have {STATE_VALUES} values and actions {ACTIONS}")
        if self.sizes.action_dim < ACTIONS:
            raise SpecError(f"action_dim must be at least {ACTIONS}, got {self.sizes.action_dim}")
