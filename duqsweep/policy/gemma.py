"""Gemma layers of pi0.5: the language model's, and the action expert's with adaptive norms.

Names and arithmetic follow `transformers.GemmaModel` (RMSNorm with 1 + weight, rotary positions,
shared key and value heads, tanh-GELU gate) and openpi's `gemma.py` (adaptive RMSNorm). There is
no mask: prefix tokens attend to the whole prefix, action tokens to the prefix and to one another.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import StackSizes

NORM_EPS = 1e-6
ROPE_BASE = 10_000.0

KeysValues = tuple[Tensor, Tensor]  # each (batch, kv_heads, tokens, head_dim)


def rotary_table(positions: Tensor, head_dim: int) -> KeysValues:
    """Cosines and sines, each (positions, head_dim / 2), in float32."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    angles = positions.float()[:, None] * ROPE_BASE**-exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, table: KeysValues) -> Tensor:
    """Rotary positions on (batch, heads, tokens, head_dim); i pairs with i + head_dim / 2."""
    cos, sin = table
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x.dtype)


def normalise(x: Tensor) -> Tensor:
    """Divide x by its root mean square along the last axis, in float32."""
    return F.rms_norm(x.float(), x.shape[-1:], eps=NORM_EPS)


class RmsNorm(nn.Module):
    """RMS norm with a learned scale, stored as its difference from 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) → the same shape."""
        return (normalise(x) * (1.0 + self.weight.float())).to(x.dtype)


class AdaptiveRmsNorm(nn.Module):
    """RMS norm whose scale, shift and residual gate are computed from the flow's time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)

    def modulation(self, condition: Tensor) -> Tensor:
        """(n, width) → (n, 3, width): factor (1 + scale), shift and gate."""
        scale, shift, gate = self.dense(condition).chunk(3, dim=-1)
        return torch.stack((1.0 + scale, shift, gate), dim=1)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(batch, tokens, width) → the same shape; modulation: (batch or 1, 3, width)."""
        factor, shift = modulation[:, 0:1], modulation[:, 1:2]
        return torch.addcmul(shift, normalise(x), factor).to(x.dtype)


class GemmaAttention(nn.Module):
    """Attention over the tokens themselves and, if given, earlier keys and values."""

    def __init__(self, sizes: StackSizes) -> None:
        super().__init__()
        self.kv_heads, self.head_dim = sizes.kv_heads, sizes.head_dim
        self.q_proj = nn.Linear(sizes.width, sizes.heads * sizes.head_dim, bias=False)
        self.k_proj = nn.Linear(sizes.width, sizes.kv_heads * sizes.head_dim, bias=False)
        self.v_proj = nn.Linear(sizes.width, sizes.kv_heads * sizes.head_dim, bias=False)
        self.o_proj = nn.Linear(sizes.heads * sizes.head_dim, sizes.width, bias=False)

    def forward(
        self, x: Tensor, table: KeysValues, earlier: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """Attend.

        Args:
            x: (batch, tokens, width).
            table: Rotary table of the tokens' positions.
            earlier: Keys, with rotary positions, and values to attend to as well.

        Returns:
            Outputs (batch, tokens, width), and the tokens' own keys and values.
        """
        batch, tokens, _ = x.shape
        q, k, v = (
            project(x).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, table), rotate(k, table)
        own = (k, v)
        if earlier is not None:
            k, v = torch.cat((earlier[0], k), dim=2), torch.cat((earlier[1], v), dim=2)
        # Query heads that share a key head are adjacent: fold them into the token axis.
        folded = q.reshape(batch, self.kv_heads, -1, self.head_dim)
        mixed = F.scaled_dot_product_attention(folded, k, v)
        mixed = mixed.reshape(batch, -1, tokens, self.head_dim).transpose(1, 2)
        return self.o_proj(mixed.reshape(batch, tokens, -1)), own


class GemmaMlp(nn.Module):
    """Gated MLP: down(gelu(gate(x)) * up(x))."""

    def __init__(self, sizes: StackSizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.width, sizes.mlp, bias=False)
        self.up_proj = nn.Linear(sizes.width, sizes.mlp, bias=False)
        self.down_proj = nn.Linear(sizes.mlp, sizes.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) → the same shape."""
        gate = F.gelu(self.gate_proj(x), approximate="tanh")
        return cast(Tensor, self.down_proj(gate * self.up_proj(x)))


class PrefixLayer(nn.Module):
    """One layer of the language model."""

    def __init__(self, sizes: StackSizes) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(sizes.width)
        self.self_attn = GemmaAttention(sizes)
        self.post_attention_layernorm = RmsNorm(sizes.width)
        self.mlp = GemmaMlp(sizes)

    def forward(self, x: Tensor, table: KeysValues) -> tuple[Tensor, KeysValues]:
        """(batch, tokens, width) → the same shape, and the layer's keys and values."""
        mixed, cache = self.self_attn(self.input_layernorm(x), table)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), cache


class ExpertLayer(nn.Module):
    """One layer of the action expert: adaptive norms, gated residuals."""

    def __init__(self, sizes: StackSizes) -> None:
        super().__init__()
        self.input_layernorm = AdaptiveRmsNorm(sizes.width)
        self.self_attn = GemmaAttention(sizes)
        self.post_attention_layernorm = AdaptiveRmsNorm(sizes.width)
        self.mlp = GemmaMlp(sizes)

    def forward(
        self, x: Tensor, table: KeysValues, prefix: KeysValues, modulation: tuple[Tensor, Tensor]
    ) -> Tensor:
        """(batch, tokens, width) → the same shape; modulation: of the two norms."""
        before_attention, before_mlp = modulation
        mixed, _ = self.self_attn(self.input_layernorm(x, before_attention), table, prefix)
        x = torch.addcmul(x, mixed, before_attention[:, 2:3].to(x.dtype))
        update = self.mlp(self.post_attention_layernorm(x, before_mlp))
        return torch.addcmul(x, update, before_mlp[:, 2:3].to(x.dtype))
