"""pi0.5: images and prompt give a prefix cache; a flow is integrated from noise to actions.

Module names are openpi's (`PI0Pytorch`), so that its state dict loads without renaming. Its two
language-model heads are not needed to compute actions and have no module here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, VisionSizes
from duqsweep.policy.gemma import (
    AdaptiveRmsNorm,
    ExpertLayer,
    KeysValues,
    PrefixLayer,
    RmsNorm,
    rotary_table,
)
from duqsweep.policy.schedule import flow_times
from duqsweep.policy.siglip import SiglipVision, merge_patches
from duqsweep.spec import UNIFORM, Schedule

MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0  # openpi: embed_suffix of pi0.py

PrefixCache = tuple[KeysValues, ...]  # one pair per layer


class LanguageModel(nn.Module):
    """Gemma without its head."""

    def __init__(self, sizes: StackSizes, vocabulary: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, sizes.width)
        self.layers = nn.ModuleList(PrefixLayer(sizes) for _ in range(sizes.depth))
        self.norm = RmsNorm(
            sizes.width
        )  # in every checkpoint, but not used: only the layers' caches are


class ActionExpert(nn.Module):
    """The "DiT": Gemma layers with adaptive norms, conditioned on the flow's time."""

    def __init__(self, sizes: StackSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ExpertLayer(sizes) for _ in range(sizes.depth))
        self.norm = AdaptiveRmsNorm(sizes.width)


class _VisionTower(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.vision_model = SiglipVision(sizes)


class _Projector(nn.Module):
    def __init__(self, vision: VisionSizes, llm: StackSizes) -> None:
        super().__init__()
        self.linear = nn.Linear(vision.width * vision.merge**2, llm.width)


class _PaliGemmaModel(nn.Module):
    def __init__(self, sizes: PolicySizes) -> None:
        super().__init__()
        self.vision_tower = _VisionTower(sizes.vision)
        self.multi_modal_projector = _Projector(sizes.vision, sizes.llm)
        self.language_model = LanguageModel(sizes.llm, sizes.vocabulary)


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class _PaliGemmaWithExpert(nn.Module):
    def __init__(self, sizes: PolicySizes) -> None:
        super().__init__()
        self.paligemma = _Wrapped(_PaliGemmaModel(sizes))
        self.gemma_expert = _Wrapped(ActionExpert(sizes.expert))


class Pi05(nn.Module):
    """The whole network. `encode_images`, `prefix` and `velocity` do not branch on data."""

    def __init__(self, sizes: PolicySizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.expert.width
        self.paligemma_with_expert = _PaliGemmaWithExpert(sizes)
        self.action_in_proj = nn.Linear(sizes.action_dim, width)
        self.action_out_proj = nn.Linear(width, sizes.action_dim)
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)
        if sizes.target_time:
            self.target_time_mlp_in = nn.Linear(width, width)
            self.target_time_mlp_out = nn.Linear(width, width)

    @property
    def language_model(self) -> LanguageModel:
        """The stack that computes the prefix cache."""
        return self._paligemma.language_model

    @property
    def expert(self) -> ActionExpert:
        """The stack that computes actions."""
        return cast(ActionExpert, self.paligemma_with_expert.gemma_expert.model)

    def layers(self) -> Iterator[nn.Module]:
        """The transformer layers of all three stacks."""
        yield from self._paligemma.vision_tower.vision_model.encoder.layers
        yield from self.language_model.layers
        yield from self.expert.layers

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the residual stream; norms and projections may be in a wider dtype."""
        return self.language_model.embed_tokens.weight.dtype

    @property
    def _paligemma(self) -> _PaliGemmaModel:
        return cast(_PaliGemmaModel, self.paligemma_with_expert.paligemma.model)

    def encode_images(self, images: Tensor) -> Tensor:
        """(batch, cameras, 3, px, px) in [-1, 1] → (batch, cameras * tokens, LLM width)."""
        features = self._paligemma.vision_tower.vision_model(images.flatten(0, 1))
        merged = merge_patches(features, self.sizes.vision.merge)
        projected = self._paligemma.multi_modal_projector.linear(merged)
        return cast(Tensor, projected.unflatten(0, images.shape[:2]).flatten(1, 2))

    def prefix(self, image_tokens: Tensor, prompt: Tensor) -> PrefixCache:
        """Keys and values of the prefix; computed once per call.

        Args:
            image_tokens: (batch, image tokens, LLM width).
            prompt: (batch, prompt tokens) token ids, without padding.
        """
        words = self.language_model.embed_tokens(prompt) * self.sizes.llm.width**0.5
        x = torch.cat((image_tokens, words.to(image_tokens.dtype)), dim=1)
        positions = torch.arange(x.shape[1], device=x.device)
        table = rotary_table(positions, self.sizes.llm.head_dim)
        caches = []
        for layer in self.language_model.layers:
            x, cache = layer(x, table)
            caches.append(cache)
        return tuple(caches)

    def modulations(self, num_steps: int, schedule: Schedule = UNIFORM) -> Tensor:
        """`modulation` at each step of a schedule: (2 * depth + 1, num_steps, 3, width)."""
        times = flow_times(num_steps, schedule).to(self.time_mlp_in.weight.device)
        return self.modulation(times[:-1], times[1:])

    def modulation(self, times: Tensor, targets: Tensor | None = None) -> Tensor:
        """What the flow's time does to the expert.

        Args:
            times: (n,) in [0, 1]; 1 is noise.
            targets: (n,), the times that steps from `times` lead to; only a student with
                `target_time` looks at them. None: `times`, where a student's velocity is the
                flow's own.

        Returns:
            (2 * depth + 1, n, 3, width): factor, shift and gate of each norm in forward order.
        """
        width, dtype = self.sizes.expert.width, self.time_mlp_in.weight.dtype
        condition = time_features(times, width).to(dtype)
        condition = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(condition))))
        if self.sizes.target_time:
            target = self.target_time_mlp_in(
                time_features(times if targets is None else targets, width).to(dtype)
            )
            condition = condition + self.target_time_mlp_out(F.silu(target))
        norms = [norm for norm in self.expert.modules() if isinstance(norm, AdaptiveRmsNorm)]
        return torch.stack([norm.modulation(condition) for norm in norms])

    def velocity(self, actions: Tensor, cache: PrefixCache, modulation: Tensor) -> Tensor:
        """The flow's velocity at noisy actions.

        Args:
            actions: (batch, horizon, action_dim).
            cache: Of `prefix`.
            modulation: (2 * depth + 1, batch or 1, 3, width), of `modulation`.

        Returns:
            Like actions: from data towards noise.
        """
        start = cache[0][0].shape[2]
        positions = torch.arange(start, start + actions.shape[1], device=actions.device)
        table = rotary_table(positions, self.sizes.expert.head_dim)
        x = self.action_in_proj(actions.to(self.action_in_proj.weight.dtype)).to(self.dtype)
        for i, layer in enumerate(self.expert.layers):
            x = layer(x, table, cache[i], (modulation[2 * i], modulation[2 * i + 1]))
        normed = self.expert.norm(x, modulation[-1])
        return cast(Tensor, self.action_out_proj(normed.to(self.action_out_proj.weight.dtype)))


def time_features(times: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of (n,) times at width / 2 periods spaced geometrically: (n, width).

    Source: openpi, `create_sinusoidal_pos_embedding`; computed in float64 there as here.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=times.device)
    period = MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** fraction
    angles = times.double()[:, None] * (2 * torch.pi / period)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()
