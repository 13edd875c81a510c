"""Images and prompt to the prefix cache in few kernels, for one observation at a time.

Equal to `Pi05.encode_images` and `Pi05.prefix`. The products of q, k and v are merged, and of gate
and up; of the last language layer only keys and values are computed, since nothing reads the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.policy.gemma import KeysValues, PrefixLayer, rotary_table, rotate
from duqsweep.policy.pi05 import Pi05, PrefixCache
from duqsweep.policy.siglip import SiglipLayer, merge_patches
from duqsweep.policy.sizes import StackSizes


class FusedVisionLayer(nn.Module):
    """One SigLIP layer."""

    def __init__(self, layer: SiglipLayer) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads = attention.heads
        self.qkv = merged([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out_proj, self.mlp = attention.out_proj, layer.mlp
        self.layer_norm1, self.layer_norm2 = layer.layer_norm1, layer.layer_norm2

    def forward(self, x: Tensor) -> Tensor:
        """(images, patches, width) → the same shape."""
        qkv = self.qkv(self.layer_norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out_proj(mixed)
        return cast(Tensor, x + self.mlp(self.layer_norm2(x)))


class FusedPrefixLayer(nn.Module):
    """One layer of the language model."""

    def __init__(self, layer: PrefixLayer, sizes: StackSizes) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = sizes.heads, sizes.kv_heads, sizes.head_dim
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = merged([attention.q_proj, attention.k_proj, attention.v_proj])
        self.kv = merged([attention.k_proj, attention.v_proj])
        self.gate_up = merged([mlp.gate_proj, mlp.up_proj])
        self.o_proj, self.down_proj = attention.o_proj, mlp.down_proj
        self.input_layernorm = layer.input_layernorm
        self.post_attention_layernorm = layer.post_attention_layernorm

    def forward(self, x: Tensor, table: KeysValues) -> tuple[Tensor, KeysValues]:
        """(tokens, width) → the same shape, and (1, kv_heads, tokens, head_dim) keys and values."""
        heads = [self.heads, self.kv_heads, self.kv_heads]
        q, k, v = self._split(self.qkv(self.input_layernorm(x)), heads)
        q, k = rotate(q, table), rotate(k, table)
        folded = q.reshape(1, self.kv_heads, -1, self.head_dim)
        mixed = F.scaled_dot_product_attention(folded, k, v)
        mixed = mixed.view(self.heads, -1, self.head_dim).transpose(0, 1).flatten(1)
        x = x + self.o_proj(mixed)
        gate, up = self.gate_up(self.post_attention_layernorm(x)).chunk(2, dim=-1)
        return x + self.down_proj(F.gelu(gate, approximate="tanh") * up), (k, v)

    def keys_values(self, x: Tensor, table: KeysValues) -> KeysValues:
        """The keys and values alone."""
        k, v = self._split(self.kv(self.input_layernorm(x)), [self.kv_heads, self.kv_heads])
        return rotate(k, table), v

    def _split(self, merged_heads: Tensor, heads: list[int]) -> tuple[Tensor, ...]:
        split = merged_heads.view(len(merged_heads), -1, self.head_dim).transpose(0, 1)
        return torch.split(split[None], heads, dim=1)


class FusedPrefix(nn.Module):
    """From pixels and tokens to the cache that the expert reads."""

    def __init__(self, module: Pi05) -> None:
        """Merge weights; those of `module` stay as they are."""
        super().__init__()
        self.sizes = module.sizes
        paligemma: Any = module.paligemma_with_expert.paligemma.model
        vision = paligemma.vision_tower.vision_model
        self.embeddings, self.post_layernorm = vision.embeddings, vision.post_layernorm
        self.project = paligemma.multi_modal_projector.linear
        self.embed_tokens = module.language_model.embed_tokens
        self.vision_layers = nn.ModuleList(
            FusedVisionLayer(cast(SiglipLayer, layer)) for layer in vision.encoder.layers
        )
        self.layers = nn.ModuleList(
            FusedPrefixLayer(cast(PrefixLayer, layer), self.sizes.llm)
            for layer in module.language_model.layers
        )
        self._see: Callable[..., Tensor] = FusedVisionLayer.forward
        self._read: Callable[..., tuple[Tensor, KeysValues]] = FusedPrefixLayer.forward
        self._finish: Callable[..., KeysValues] = FusedPrefixLayer.keys_values

    def compile(self) -> None:
        """torch.compile one layer of each stack; all layers of a stack share its code."""
        self._see = torch.compile(self._see, fullgraph=True, dynamic=False)
        self._read = torch.compile(self._read, fullgraph=True, dynamic=False)
        self._finish = torch.compile(self._finish, fullgraph=True, dynamic=False)

    def encode_images(self, images: Tensor) -> Tensor:
        """(cameras, 3, px, px) in [-1, 1] → (cameras * tokens, LLM width)."""
        x = self.embeddings(images).to(self.post_layernorm.weight.dtype)
        for layer in self.vision_layers:
            x = self._see(layer, x)
        merged_patches = merge_patches(self.post_layernorm(x), self.sizes.vision.merge)
        return cast(Tensor, self.project(merged_patches).flatten(0, 1))

    def forward(self, images: Tensor, prompt: Tensor) -> PrefixCache:
        """Keys and values of the prefix, batch 1.

        Args:
            images: (cameras, 3, px, px) in [-1, 1].
            prompt: (tokens,) token ids, without padding.
        """
        seen = self.encode_images(images)
        words = self.embed_tokens(prompt) * self.sizes.llm.width**0.5
        x = torch.cat((seen, words.to(seen.dtype)))
        table = rotary_table(torch.arange(len(x), device=x.device), self.sizes.llm.head_dim)
        caches = []
        for layer in self.layers[:-1]:
            x, cache = self._read(layer, x, table)
            caches.append(cache)
        return (*caches, self._finish(self.layers[-1], x, table))


def merged(linears: Sequence[nn.Module]) -> nn.Linear:
    """One layer whose outputs are those of all, one after the other."""
    first = cast(nn.Linear, linears[0])
    weight = torch.cat([cast(nn.Linear, linear).weight.detach() for linear in linears])
    both = nn.Linear(first.in_features, len(weight), bias=first.bias is not None, device="meta")
    both.weight = nn.Parameter(weight, requires_grad=False)
    if first.bias is not None:
        biases = [cast(nn.Linear, linear).bias.detach() for linear in linears]
        both.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return both
