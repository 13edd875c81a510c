"""The SigLIP image encoder: patches, learned positions, pre-norm attention and MLP.

Names and arithmetic are those of `transformers.SiglipVisionModel` (LayerNorm eps 1e-6, tanh GELU,
no class token), so that its weights load as they are.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import VisionSizes

NORM_EPS = 1e-6


class SiglipEmbeddings(nn.Module):
    """Patches to vectors, plus one learned vector per position."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        patch = sizes.patch_px
        self.patch_embedding = nn.Conv2d(3, sizes.width, kernel_size=patch, stride=patch)
        self.position_embedding = nn.Embedding(sizes.patches_per_side**2, sizes.width)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, px, px) in [-1, 1] → (n, patches, width)."""
        pixels = images.to(self.patch_embedding.weight.dtype)
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return cast(Tensor, patches + self.position_embedding.weight)


class SiglipAttention(nn.Module):
    """Attention among all patches of one image."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_proj = nn.Linear(sizes.width, sizes.width)
        self.k_proj = nn.Linear(sizes.width, sizes.width)
        self.v_proj = nn.Linear(sizes.width, sizes.width)
        self.out_proj = nn.Linear(sizes.width, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, patches, width) → the same shape."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.out_proj(mixed.transpose(1, 2).flatten(2)))


class SiglipMlp(nn.Module):
    """Two linear layers with tanh-GELU between them."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.width, sizes.mlp)
        self.fc2 = nn.Linear(sizes.mlp, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) → the same shape."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x), approximate="tanh")))


class SiglipLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.self_attn = SiglipAttention(sizes)
        self.layer_norm2 = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.mlp = SiglipMlp(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, patches, width) → the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return cast(Tensor, x + self.mlp(self.layer_norm2(x)))


class SiglipEncoder(nn.Module):
    """The stack of layers; a module of its own because it is part of names in checkpoints."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SiglipLayer(sizes) for _ in range(sizes.depth))


class SiglipVision(nn.Module):
    """Images to one vector per patch."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.embeddings = SiglipEmbeddings(sizes)
        self.encoder = SiglipEncoder(sizes)
        self.post_layernorm = nn.LayerNorm(sizes.width, eps=NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, px, px) in [-1, 1] → (n, patches, width)."""
        x = self.embeddings(images).to(self.post_layernorm.weight.dtype)
        for layer in self.encoder.layers:
            x = layer(x)
        return cast(Tensor, self.post_layernorm(x))


def merge_patches(x: Tensor, merge: int) -> Tensor:
    """Join each merge x merge square of neighbouring patches: (n, s*s, w) → (n, (s/m)^2, m*m*w)."""
    if merge == 1:
        return x
    n, patches, width = x.shape
    side = int(patches**0.5) // merge
    x = x.view(n, side, merge, side, merge, width).transpose(2, 3)
    return x.reshape(n, side * side, merge * merge * width)
