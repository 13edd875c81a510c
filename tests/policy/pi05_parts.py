"""A pi0.5 small enough for a test, and ways to damage its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from duqsweep.checkpoint.pi05_config import CONFIG_JSON, NAME
from duqsweep.checkpoint.pi05_folder import WEIGHTS
from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, VisionSizes
from duqsweep.seams import Observation
from duqsweep.spec import PolicySpec

LAYOUTS = ("openpi", "lerobot")
TINY = PolicySizes(
    vision=VisionSizes(width=24, depth=2, mlp=40, heads=3, patch_px=14, image_px=56),
    llm=StackSizes(width=48, depth=3, mlp=80, heads=4, kv_heads=1, head_dim=8),
    expert=StackSizes(width=32, depth=3, mlp=56, heads=4, kv_heads=1, head_dim=8),
    horizon=6,
    action_dim=12,
    vocabulary=300,
    prompt_tokens=100,
    cameras=3,
)


def spec(folder: Path, tokenizer: Path | None = None) -> PolicySpec:
    return PolicySpec(NAME, str(folder), None if tokenizer is None else str(tokenizer))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_config(folder: Path, **changes: Any) -> None:
    change_json(folder / CONFIG_JSON, **changes)


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    held = {**load_file(folder / WEIGHTS), **changes}
    save_file({k: v for k, v in held.items() if v is not None}, folder / WEIGHTS)


def observation(side: int = 64) -> Observation:
    pixels = np.random.default_rng(1).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    return Observation(
        images={"agentview": pixels[0], "wrist": pixels[1]},
        eef_pos=np.array([0.1, -0.2, 0.9]),
        eef_quat=np.array([0.98, 0.1, -0.1, 0.14]) / np.linalg.norm([0.98, 0.1, -0.1, 0.14]),
        gripper_qpos=np.array([0.03, -0.03]),
        instruction="pick up the bowl",
    )


def noise(sizes: PolicySizes = TINY) -> np.ndarray:
    shape = (sizes.horizon, sizes.action_dim)
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)
