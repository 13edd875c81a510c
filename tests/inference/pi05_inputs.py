"""What policies in the form of pi0.5 are called with."""

from __future__ import annotations

import numpy as np

from duqsweep.seams import Observation, Policy

INSTRUCTIONS = ("pick up the red cube", "pick up the bowl and place it in the tray")


def seen(instruction: str = INSTRUCTIONS[0], seed: int = 0, side: int = 224) -> Observation:
    """Pictures of noise, and a fixed state of the arm."""
    pixels = np.random.default_rng(seed).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    return Observation(
        images={"agentview": pixels[0], "wrist": pixels[1]},
        eef_pos=np.array([0.1, -0.2, 0.9]),
        eef_quat=np.array([0.98, 0.1, -0.1, 0.14]),
        gripper_qpos=np.array([0.03, -0.03]),
        instruction=instruction,
    )


def noise_of(policy: Policy, seed: int = 1) -> np.ndarray:
    """(horizon, action_dim) float32."""
    shape = (policy.horizon, policy.action_dim)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
