"""Compares our pi0.5 with LeRobot's, which is its reference, on random weights of a reduced size.

LeRobot saves a policy; ours is loaded from that folder as a user's is. Then both get the same noise
and the same inputs: first tensors and tokens, then what a simulator shows.

Needs LeRobot and about 11 GB of memory, and downloads nothing; docs/parity.md says how to run it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.pi05.modeling_pi05 import PI05Policy
from lerobot_reference import (
    CAMERA_PX,
    build_processors,
    build_reference,
    reference_actions,
    seen_by_lerobot,
)
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, sizes_of
from duqsweep.checkpoint.tokenizer import NAMES
from duqsweep.codec import encode
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import train_tokenizer
from duqsweep.seams import Observation
from duqsweep.spec import PolicySpec

LIMIT = 1e-4
PROMPT_LENGTHS = (7, 22)  # of two observations
INSTRUCTIONS = ("pick up the bowl and place it in the tray", "pick up the milk")


def reduced_sizes() -> PolicySizes:
    """pi0.5 with three layers in each Gemma stack; LeRobot fixes the LLM's width and SigLIP."""
    llm = StackSizes(width=2048, depth=3, mlp=2048, heads=8, kv_heads=1, head_dim=256)
    expert = replace(llm, width=256, mlp=512)
    return replace(sizes_of("pi05_libero"), llm=llm, expert=expert)


def load_ours(reference: PI05Policy, processors: Any, folder: Path) -> Pi05Policy:
    """Our policy from the folder that LeRobot saves; only its unusual sizes are added there."""
    for part in (reference, *processors):
        part.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sizes": encode(reduced_sizes())}))
    return load_policy(PolicySpec("pi05_libero", str(folder)), "cpu")


@torch.no_grad()
def our_actions(module: Pi05, images: Tensor, prompt: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Actions from two images and a prompt without padding."""
    cache = module.prefix(module.encode_images(images), prompt)
    actions = noise
    for modulation in module.modulations(steps).unbind(1):
        actions = actions - module.velocity(actions, cache, modulation[:, None]) / steps
    return actions


def seen_by_ours(raw: dict[str, Any]) -> Observation:
    """What our simulator would show: its pictures are upright, MuJoCo's are upside down."""
    return Observation(
        images={camera: raw[camera][::-1] for camera in ("agentview", "wrist")},
        eef_pos=raw["pos"],
        eef_quat=raw["quat"],
        gripper_qpos=raw["fingers"],
        instruction=raw["task"],
    )


def simulated(seed: int) -> Iterator[dict[str, Any]]:
    """What a simulator may hold: smooth pictures, a pose, fingers, an instruction."""
    generator = np.random.default_rng(seed)
    for task in INSTRUCTIONS:
        blocks = generator.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        pictures = blocks.repeat(CAMERA_PX // 32, 1).repeat(CAMERA_PX // 32, 2)
        quat = generator.standard_normal(4)
        yield {
            "agentview": pictures[0],
            "wrist": pictures[1],
            "pos": generator.uniform(-0.5, 0.5, 3),
            "quat": quat / np.linalg.norm(quat),
            "fingers": generator.uniform(-0.04, 0.04, 2),
            "task": task,
        }


def tensor_errors(reference: nn.Module, ours: Pi05, steps: int) -> Iterator[tuple[str, float]]:
    """Network against network, on random tensors and tokens."""
    sizes = ours.sizes
    for length in PROMPT_LENGTHS:
        images = torch.rand(1, 2, 3, sizes.vision.image_px, sizes.vision.image_px) * 2 - 1
        prompt = torch.randint(sizes.vocabulary, (1, length))
        noise = torch.randn(1, sizes.horizon, sizes.action_dim)
        expected = reference_actions(reference, images, prompt, noise, sizes, steps)
        actions = our_actions(ours, images, prompt, noise, steps)
        moved = float((expected - noise).abs().max())
        yield (
            f"prompt of {length:2d} tokens, moved {moved:.2f} from the noise",
            relative(actions, expected),
        )


@torch.no_grad()
def observation_errors(
    reference: PI05Policy, processors: Any, ours: Pi05Policy, seed: int
) -> Iterator[tuple[str, float]]:
    """Policy against policy, from the simulator's pictures and state to its actions."""
    before, after = processors
    for raw in simulated(seed):
        noise = torch.randn(1, ours.horizon, ours.action_dim)
        batch = before(seen_by_lerobot(raw))
        chunk = reference.predict_action_chunk(batch, noise=noise, num_steps=ours.num_steps)
        expected = after(chunk)[0]
        actions = torch.from_numpy(ours.act(seen_by_ours(raw), noise[0].numpy()))
        largest = float(expected.abs().max())
        yield f"{raw['task']!r}, largest action {largest:.2f}", relative(actions, expected)


def relative(actions: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest action."""
    return float((actions - expected).abs().max() / expected.abs().max())


def main() -> int:
    """Print the error of each observation; exit code 1 when one is too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    reference = build_reference(reduced_sizes())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_tokenizer(folder / NAMES[0])
        processors = build_processors(reference.config, folder / NAMES[0])
        ours = load_ours(reference, processors, folder).copy(options.steps)
    parameters = sum(value.numel() for value in ours.module.parameters())
    print(f"pi0.5 with {parameters / 1e6:.0f} M parameters, fp32, {options.steps} steps")
    worst = 0.0
    for title, errors in (
        ("tensors to actions", tensor_errors(reference.model, ours.module, options.steps)),
        ("simulator to actions", observation_errors(reference, processors, ours, options.seed)),
    ):
        print(f"{title}:")
        for what, error in errors:
            print(f"  {what}: max relative error {error:.2e}")
            worst = max(worst, error)
    print(f"max relative error {worst:.2e}, allowed {LIMIT:.0e}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
