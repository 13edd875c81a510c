"""How the embedded policy's network starts, and the loss it is trained with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duqsweep.checkpoint.embedded_config import STATE_VALUES, EmbeddedConfig
from duqsweep.checkpoint.io_spec import STATE_BINS
from duqsweep.policy.gemma import AdaptiveRmsNorm
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.preprocess import scale_pixels

FOURIER_OCTAVES = 6
SHIFT_PX = 1


def initialise(module: Pi05, config: EmbeddedConfig) -> None:
    """Small embeddings, state bins that start as smooth functions of their value, open gates."""
    width = config.sizes.llm.width
    embedding = module.language_model.embed_tokens.weight
    nn.init.normal_(embedding, std=0.5 * width**-0.5)  # times sqrt(width) when read
    value = torch.linspace(-1.0, 1.0, STATE_BINS)[:, None] * math.pi
    waves = value * 2.0 ** torch.arange(-1, FOURIER_OCTAVES - 1)
    features = torch.cat((waves.sin(), waves.cos()), dim=1) * 2.0 ** -torch.arange(
        FOURIER_OCTAVES
    ).repeat(2).mul(0.5)
    for i in range(STATE_VALUES):
        mix = torch.randn(features.shape[1], width) / features.shape[1] ** 0.5
        start = config.first_bin + i * STATE_BINS
        with torch.no_grad():
            base = torch.randn(width) * 0.5
            embedding[start : start + STATE_BINS] = (features @ mix + base) * width**-0.5
    for name, parameter in module.named_parameters():
        if "position_embedding" in name:
            nn.init.normal_(parameter, std=0.1)
    for norm in module.modules():
        if isinstance(norm, AdaptiveRmsNorm):
            nn.init.zeros_(norm.dense.weight)
            nn.init.zeros_(norm.dense.bias)
            nn.init.ones_(norm.dense.bias[-norm.dense.in_features :])


def embed_by_product(module: Pi05) -> None:
    """Look tokens up by a matrix product, whose gradient a CUDA graph can hold for certain."""
    embedding = module.language_model.embed_tokens
    ids = torch.arange(embedding.num_embeddings, device=embedding.weight.device)

    def look_up(prompt: Tensor) -> Tensor:
        return (prompt[..., None] == ids).to(embedding.weight.dtype) @ embedding.weight

    embedding.forward = look_up


def keep_residuals_wide(module: Pi05) -> None:
    """Let both stacks add up in float32 under autocast, where linear layers answer in bfloat16."""
    paligemma = module.paligemma_with_expert.paligemma.model
    for entrance in (paligemma.multi_modal_projector.linear, module.action_in_proj):
        entrance.register_forward_hook(lambda _, inputs, output: output.float())


def augment(pixels: Tensor) -> Tensor:
    """Random shift and colour of each picture.

    Args:
        pixels: (n, cameras, px, px, 3) bytes.

    Returns:
        (n, cameras, 3, px, px), about [-1, 1].
    """
    n, cameras, side = pixels.shape[:3]
    device = pixels.device
    flat = pixels.flatten(0, 1)
    steps = torch.arange(side, device=device)
    shift = torch.randint(-SHIFT_PX, SHIFT_PX + 1, (2, n * cameras, 1), device=device)
    rows, columns = (steps + shift).clamp(0, side - 1)
    picture = torch.arange(n * cameras, device=device)[:, None, None]
    x = scale_pixels(flat[picture, rows[:, :, None], columns[:, None, :]])
    x = x.unflatten(0, (n, cameras))

    def spread(*shape: int, by: float) -> Tensor:
        return (torch.rand(shape, device=device) * 2 - 1) * by

    contrast = 1 + spread(n, cameras, 1, 1, 1, by=0.2) + spread(n, cameras, 3, 1, 1, by=0.1)
    brightness = spread(n, cameras, 1, 1, 1, by=0.2) + spread(n, cameras, 3, 1, 1, by=0.1)
    return x * contrast + brightness + 0.02 * torch.randn_like(x)


def jitter_bins(prompt: Tensor, config: EmbeddedConfig) -> Tensor:
    """Move each state token by -1, 0 or 1 bins, so that neighbouring bins mean much the same."""
    text, bins = prompt[:, :-STATE_VALUES], prompt[:, -STATE_VALUES:]
    first = config.first_bin + STATE_BINS * torch.arange(STATE_VALUES, device=prompt.device)
    moved = bins - first + torch.randint(-1, 2, bins.shape, device=prompt.device)
    return torch.cat((text, moved.clamp(0, STATE_BINS - 1) + first), dim=1)


def flow_loss(
    module: Pi05, images: Tensor, prompt: Tensor, chunk: Tensor, weight: Tensor, draws: int
) -> Tensor:
    """Weighted flow-matching error, with several (noise, time) draws for each costly prefix.

    Args:
        module: The network.
        images: (n, cameras, 3, px, px).
        prompt: (n, tokens).
        chunk: (n, horizon, 7) normalised actions.
        weight: (n, horizon).
        draws: Of noise and time for each sample.

    Source: pi0's flow matching; times follow Beta(1.5, 1) as in openpi.
    """
    cache = module.prefix(module.encode_images(images), prompt)
    cache = tuple((k.repeat_interleave(draws, 0), v.repeat_interleave(draws, 0)) for k, v in cache)
    target, weight = chunk.repeat_interleave(draws, 0), weight.repeat_interleave(draws, 0)
    noise = torch.randn_like(target)
    times = 0.001 + 0.999 * torch.rand(len(target), device=target.device) ** (1 / 1.5)
    noisy = torch.lerp(target, noise, times[:, None, None])
    modulation = module.modulation(times)
    error = (module.velocity(noisy, cache, modulation).float() - (noise - target)).square()
    return (error.mean(-1) * weight).sum() / weight.sum()


@torch.no_grad()
def predict(module: Pi05, images: Tensor, prompt: Tensor, noise: Tensor, num_steps: int) -> Tensor:
    """(n, horizon, 7) normalised actions by Euler's method."""
    cache = module.prefix(module.encode_images(images), prompt)
    modulation = module.modulations(num_steps)
    actions = noise
    for i in range(num_steps):
        actions = actions - module.velocity(actions, cache, modulation[:, i : i + 1]) / num_steps
    return actions
