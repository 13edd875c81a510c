"""A small policy with random weights, and observations for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, VisionSizes
from duqsweep.policy.load import load_policy, save_random
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.seams import Observation
from duqsweep.spec import PolicySpec

INSTRUCTION = "pick up the red cube"


def small_sizes() -> PolicySizes:
    """All widths differ, so that mixing two up is an error."""
    return PolicySizes(
        vision=VisionSizes(width=24, depth=2, mlp=40, heads=3, patch_px=8, image_px=32, merge=2),
        llm=StackSizes(width=48, depth=3, mlp=80, heads=4, kv_heads=2, head_dim=8),
        expert=StackSizes(width=32, depth=3, mlp=56, heads=4, kv_heads=2, head_dim=8),
        horizon=5,
        action_dim=9,
        vocabulary=20 + 11 * 256,
        prompt_tokens=30,
        cameras=2,
    )


@pytest.fixture
def sizes() -> PolicySizes:
    return small_sizes()


@pytest.fixture
def network(sizes: PolicySizes) -> Pi05:
    """Random weights, including norms, which would hide errors if they were zero."""
    torch.manual_seed(0)
    module = Pi05(sizes)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.2)
    return module.eval().requires_grad_(False)


@pytest.fixture
def checkpoint(tmp_path: Path, sizes: PolicySizes) -> Path:
    folder = tmp_path / "checkpoint"
    save_random(folder, [INSTRUCTION], sizes)
    return folder


@pytest.fixture
def policy(checkpoint: Path) -> Pi05Policy:
    return load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")


@pytest.fixture
def observation() -> Observation:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return Observation(
        images={"agentview": pixels[0], "wrist": pixels[1]},
        eef_pos=np.array([0.1, -0.2, 0.9]),
        eef_quat=np.array([0.98, 0.1, -0.1, 0.14]),
        gripper_qpos=np.array([0.03, -0.03]),
        instruction=INSTRUCTION,
    )


@pytest.fixture
def noise(sizes: PolicySizes) -> np.ndarray:
    shape = (sizes.horizon, sizes.action_dim)
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)
