"""Compares our pi0.5 with LeRobot's, which is its reference, on random weights of a reduced size.

Needs LeRobot and about 10 GB of memory, and downloads nothing; docs/parity.md says how to run it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from torch import Tensor, nn

from duqsweep.policy.pi05 import Pi05, euler_times
from duqsweep.policy.sizes import PolicySizes, StackSizes, sizes_of

LIMIT = 1e-4
PROMPT_LENGTHS = (7, 22)  # of two observations
HEAD_NAMES = ("gemma_expert.lm_head.", "paligemma.lm_head.")  # play no part in acting


def reduced_sizes() -> PolicySizes:
    """pi0.5 with three layers in each Gemma stack; LeRobot fixes the LLM's width and SigLIP."""
    llm = StackSizes(width=2048, depth=3, mlp=2048, heads=8, kv_heads=1, head_dim=256)
    expert = replace(llm, width=256, mlp=512)
    return replace(sizes_of("pi05_libero"), llm=llm, expert=expert)


def build_reference(sizes: PolicySizes) -> nn.Module:
    """LeRobot's network of these sizes, every parameter random."""
    stacks = {"gemma_2b": sizes.llm, "gemma_300m": sizes.expert}

    def config_of(variant: str) -> modeling_pi05.GemmaConfig:
        stack = stacks[variant]
        return modeling_pi05.GemmaConfig(
            width=stack.width,
            depth=stack.depth,
            mlp_dim=stack.mlp,
            num_heads=stack.heads,
            num_kv_heads=stack.kv_heads,
            head_dim=stack.head_dim,
        )

    modeling_pi05.get_gemma_config = config_of
    config = PI05Config(
        dtype="float32", chunk_size=sizes.horizon, n_action_steps=sizes.horizon, device="cpu"
    )
    reference = modeling_pi05.PI05Pytorch(config).eval()
    randomise(reference)
    return reference


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Give every parameter a part in the result; LeRobot starts norms and AdaRMS at zero."""
    for name, value in module.named_parameters():
        if "lm_head" in name:
            continue
        if value.ndim == 1:
            value.normal_(std=0.2)
        elif "embed_tokens" in name:
            value.normal_(std=value.shape[1] ** -0.5)
        else:
            value.normal_(std=value[0].numel() ** -0.5)


def build_ours(sizes: PolicySizes, state: dict[str, Tensor]) -> Pi05:
    """Our network on the same tensors; every name but the unused heads must fit."""
    with torch.device("meta"):
        module = Pi05(sizes)
    kept = {name: value for name, value in state.items() if not any(h in name for h in HEAD_NAMES)}
    module.load_state_dict(kept, assign=True)
    return module.eval()


@torch.no_grad()
def our_actions(module: Pi05, images: Tensor, prompt: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Actions from two images and a prompt without padding."""
    cache = module.prefix(module.encode_images(images), prompt)
    actions = noise
    for modulation in module.modulation(euler_times(steps)).unbind(1):
        actions = actions - module.velocity(actions, cache, modulation[:, None]) / steps
    return actions


def reference_actions(
    module: nn.Module, images: Tensor, prompt: Tensor, noise: Tensor, sizes: PolicySizes, steps: int
) -> Tensor:
    """Actions as LeRobot is called on LIBERO: a third, masked image and a padded prompt."""
    absent = sizes.cameras - images.shape[1]
    shown = [*images.unbind(1), *[-torch.ones_like(images[:, 0])] * absent]
    masks = [torch.tensor([i < images.shape[1]]) for i in range(sizes.cameras)]
    tokens = torch.zeros(1, sizes.prompt_tokens, dtype=torch.int64)
    tokens[:, : prompt.shape[1]] = prompt
    token_masks = torch.arange(sizes.prompt_tokens)[None] < prompt.shape[1]
    return module.sample_actions(shown, masks, tokens, token_masks, noise=noise, num_steps=steps)


def main() -> int:
    """Print the error of each observation; exit code 1 when one is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    sizes = reduced_sizes()
    reference = build_reference(sizes)
    ours = build_ours(sizes, reference.state_dict())
    parameters = sum(value.numel() for value in ours.parameters())
    print(f"pi0.5 with {parameters / 1e6:.0f} M parameters, fp32, {options.steps} steps")
    worst = 0.0
    for length in PROMPT_LENGTHS:
        images = torch.rand(1, 2, 3, sizes.vision.image_px, sizes.vision.image_px) * 2 - 1
        prompt = torch.randint(sizes.vocabulary, (1, length))
        noise = torch.randn(1, sizes.horizon, sizes.action_dim)
        expected = reference_actions(reference, images, prompt, noise, sizes, options.steps)
        actions = our_actions(ours, images, prompt, noise, options.steps)
        error = float((actions - expected).abs().max() / expected.abs().max())
        moved = float((expected - noise).abs().max())
        print(f"prompt of {length:2d} tokens: actions moved {moved:.2f} from the noise, ", end="")
        print(f"max relative error {error:.2e}")
        worst = max(worst, error)
    print(f"max relative error {worst:.2e}, allowed {LIMIT:.0e}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
