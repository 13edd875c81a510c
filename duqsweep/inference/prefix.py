"""Images and prompt to the prefix cache in few kernels, for one observation at a time.

Equal to `Pi05.encode_images` and `Pi05.prefix`. The products of q, k and v are merged, and of gate
and up; of the last language layer only keys and values are computed, since nothing reads the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import LLM, StackSizes, rows_a_pass
from duqsweep.inference.patches import FusedPatches
from duqsweep.inference.prefix_attention import Attend, attention_on
from duqsweep.inference.prefix_products import linear_residual, mlp, norm_linear, norm_record
from duqsweep.inference.weights import has_integers
from duqsweep.kernels.rotary import Rotary
from duqsweep.policy.gemma import KeysValues, PrefixLayer, rotary_table
from duqsweep.policy.pi05 import Pi05, PrefixCache
from duqsweep.policy.siglip import SiglipLayer, merge_patches

Result = TypeVar("Result")


class FusedVisionLayer(nn.Module):
    """One SigLIP layer; rows are the patches of all images."""

    def __init__(self, layer: SiglipLayer, attend: Attend) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads, self.attend = attention.heads, attend
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.qkv = norm_linear(norm_record(layer.layer_norm1), projections)
        self.out = linear_residual(attention.out_proj)
        self.mlp = mlp(norm_record(layer.layer_norm2), [layer.mlp.fc1, layer.mlp.fc2])

    def forward(self, x: Tensor, images: int) -> Tensor:
        """(images * patches, width) → the same shape."""
        head_dim = x.shape[1] // self.heads
        mixed = self.attend(self.qkv(x), images, self.heads, head_dim)
        return cast(Tensor, self.mlp(self.out(mixed, x)))


class FusedPrefixLayer(nn.Module):
    """One layer of the language model."""

    def __init__(self, layer: PrefixLayer, sizes: StackSizes, attend: Attend) -> None:
        super().__init__()
        self.sizes, self.attend = sizes, attend
        attention = layer.self_attn
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        rotary = Rotary(sizes.head_dim, sizes.heads + sizes.kv_heads)
        self.qkv = norm_linear(norm_record(layer.input_layernorm), projections, rotary)
        self.o = linear_residual(attention.o_proj)
        parts = [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]
        self.mlp = mlp(norm_record(layer.post_attention_layernorm), parts)

    def forward(self, x: Tensor, table: KeysValues) -> tuple[Tensor, KeysValues]:
        """(tokens, width) → the same shape, and (1, kv_heads, tokens, head_dim) keys and values."""
        qkv = self.qkv(x, table=table)
        mixed = self.attend(qkv, 1, self.sizes.kv_heads, self.sizes.head_dim)
        return self.mlp(self.o(mixed, x)), keys_values(qkv, self.sizes)


class LastPrefixLayer(nn.Module):
    """Keys and values of the last layer."""

    def __init__(self, layer: PrefixLayer, sizes: StackSizes) -> None:
        super().__init__()
        self.sizes = sizes
        projections = [layer.self_attn.k_proj, layer.self_attn.v_proj]
        rotary = Rotary(sizes.head_dim, sizes.kv_heads)
        self.kv = norm_linear(norm_record(layer.input_layernorm), projections, rotary)

    def forward(self, x: Tensor, table: KeysValues) -> KeysValues:
        """(tokens, width) → (1, kv_heads, tokens, head_dim) each."""
        return keys_values(self.kv(x, table=table), self.sizes)


class FusedPrefix(nn.Module):
    """From pixels and tokens to the cache that the expert reads."""

    def __init__(self, module: Pi05) -> None:
        """Merge weights; those of `module` stay as they are."""
        super().__init__()
        self.sizes = module.sizes
        paligemma: Any = module.paligemma_with_expert.paligemma.model
        vision = paligemma.vision_tower.vision_model
        self.embeddings = FusedPatches(vision.embeddings)
        self.post_layernorm = vision.post_layernorm
        self.project = paligemma.multi_modal_projector.linear
        self.embed_tokens = module.language_model.embed_tokens
        attend = attention_on(module.language_model.embed_tokens.weight.device)
        stacks = (vision.encoder, module.language_model.layers)
        self.traceable = tuple(not has_integers(stack) for stack in stacks)
        self.vision_layers = nn.ModuleList(
            FusedVisionLayer(layer, attend) for layer in vision.encoder.layers
        )
        *layers, last = cast(list[PrefixLayer], list(module.language_model.layers))
        self.layers = nn.ModuleList(
            FusedPrefixLayer(layer, self.sizes.llm, attend) for layer in layers
        )
        self.last = LastPrefixLayer(last, self.sizes.llm)
        longest = rows_a_pass(self.sizes, self.sizes.cameras, self.sizes.prompt_tokens)[LLM]
        positions = torch.arange(longest, device=self.embed_tokens.weight.device)
        self.cosines, self.sines = rotary_table(positions, self.sizes.llm.head_dim)
        self._embed: Callable[..., Tensor] = FusedPatches.forward
        self._see: Callable[..., Tensor] = FusedVisionLayer.forward
        self._read: Callable[..., tuple[Tensor, KeysValues]] = FusedPrefixLayer.forward
        self._finish: Callable[..., KeysValues] = LastPrefixLayer.forward

    def compile(self, any_length: bool = False) -> None:
        """torch.compile one layer of each stack whose products it can trace; all share the code.

        Args:
            any_length: One code for prompts of all lengths; otherwise each length has its own.
        """
        serve = _any_length if any_length else _unchanged
        vision, llm = self.traceable
        self._embed = _compiled(self._embed)
        if vision:
            self._see = _compiled(self._see)
        if llm:
            self._read = serve(_compiled(self._read))
            self._finish = serve(_compiled(self._finish))

    def encode_images(self, images: Tensor) -> Tensor:
        """(cameras, 3, px, px) in [-1, 1] → (cameras * tokens, LLM width)."""
        x = self._embed(self.embeddings, images).to(self.post_layernorm.weight.dtype)
        rows = x.flatten(0, 1)
        for layer in self.vision_layers:
            rows = self._see(layer, rows, len(images))
        x = self.post_layernorm(rows.view(x.shape))
        merged_patches = merge_patches(x, self.sizes.vision.merge)
        return cast(Tensor, self.project(merged_patches).flatten(0, 1))

    def forward(self, images: Tensor, prompt: Tensor) -> PrefixCache:
        """Keys and values of the prefix, batch 1.

        Args:
            images: (cameras, 3, px, px) in [-1, 1].
            prompt: (tokens,) token ids, without padding.
        """
        return self.read(self.encode_images(images), prompt)

    def read(self, seen: Tensor, prompt: Tensor) -> PrefixCache:
        """The same from what `encode_images` gives."""
        words = self.embed_tokens(prompt) * self.sizes.llm.width**0.5
        x = torch.cat((seen, words.to(seen.dtype)))
        table = (self.cosines[: len(x)], self.sines[: len(x)])
        caches = []
        for layer in self.layers:
            x, cache = self._read(layer, x, table)
            caches.append(cache)
        return (*caches, self._finish(self.last, x, table))


def keys_values(rows: Tensor, sizes: StackSizes) -> KeysValues:
    """The last heads of (tokens, heads * head_dim): (1, kv_heads, tokens, head_dim) each."""
    heads = rows.view(len(rows), -1, sizes.head_dim).transpose(0, 1)[None]
    keys, values = heads[:, -2 * sizes.kv_heads :].chunk(2, dim=1)
    return keys, values


def _compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    return torch.compile(function, fullgraph=True, dynamic=False)


def _any_length(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a compiled function take tensors of any number of rows."""

    def call(*arguments: Any) -> Result:
        for argument in arguments:
            for tensor in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(tensor, Tensor):
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return function(*arguments)

    return call


def _unchanged(function: Callable[..., Result]) -> Callable[..., Result]:
    return function
