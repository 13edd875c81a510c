"""Images and prompt to the prefix cache in few kernels, for one observation at a time.

Equal to `Pi05.encode_images` and `Pi05.prefix`. The products of q, k and v are merged, and of gate
and up; of the last language layer only keys and values are computed, since nothing reads the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.kernels.norms import Norm
from duqsweep.policy.gemma import KeysValues, PrefixLayer, RmsNorm, rotary_table, rotate
from duqsweep.policy.pi05 import Pi05, PrefixCache
from duqsweep.policy.prefix_linears import PlainPrefixLinears, PrefixLinears
from duqsweep.policy.siglip import SiglipLayer, merge_patches
from duqsweep.policy.sizes import StackSizes

Result = TypeVar("Result")


class FusedVisionLayer(nn.Module):
    """One SigLIP layer; rows are the patches of all images."""

    def __init__(self, layer: SiglipLayer, linears: PrefixLinears) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.heads = attention.heads
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.qkv = linears.entry(norm_record(layer.layer_norm1), projections)
        self.out = linears.exit(attention.out_proj)
        self.mlp = linears.mlp(norm_record(layer.layer_norm2), [mlp.fc1, mlp.fc2])
        self.attend: Callable[..., Tensor] = attend_image

    def forward(self, x: Tensor, images: int) -> Tensor:
        """(images * patches, width) → the same shape."""
        x = self.out(self.attend(self.qkv(x), images, self.heads), x)
        return cast(Tensor, self.mlp(x))


class FusedPrefixLayer(nn.Module):
    """One layer of the language model."""

    def __init__(self, layer: PrefixLayer, sizes: StackSizes, linears: PrefixLinears) -> None:
        super().__init__()
        self.sizes = sizes
        attention, mlp = layer.self_attn, layer.mlp
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.qkv = linears.entry(norm_record(layer.input_layernorm), projections)
        self.o = linears.exit(attention.o_proj)
        parts = [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        self.mlp = linears.mlp(norm_record(layer.post_attention_layernorm), parts)
        self.attend: Callable[..., tuple[Tensor, KeysValues]] = attend_prefix

    def forward(self, x: Tensor, table: KeysValues) -> tuple[Tensor, KeysValues]:
        """(tokens, width) → the same shape, and (1, kv_heads, tokens, head_dim) keys and values."""
        mixed, cache = self.attend(self.qkv(x), table, self.sizes)
        return self.mlp(self.o(mixed, x)), cache


class LastPrefixLayer(nn.Module):
    """Keys and values of the last layer."""

    def __init__(self, layer: PrefixLayer, sizes: StackSizes, linears: PrefixLinears) -> None:
        super().__init__()
        self.sizes = sizes
        projections = [layer.self_attn.k_proj, layer.self_attn.v_proj]
        self.kv = linears.entry(norm_record(layer.input_layernorm), projections)

    def forward(self, x: Tensor, table: KeysValues) -> KeysValues:
        """(tokens, width) → (1, kv_heads, tokens, head_dim) each."""
        k, v = split_heads(self.kv(x), [self.sizes.kv_heads] * 2)
        return rotate(k, table), v


class FusedPrefix(nn.Module):
    """From pixels and tokens to the cache that the expert reads."""

    def __init__(self, module: Pi05, linears: PrefixLinears | None = None) -> None:
        """Merge weights; those of `module` stay as they are.

        Args:
            module: The policy.
            linears: How the products of a stack with quantized layers are made.

        Raises:
            EvaluationError: There are quantized layers and no way to make their products.
        """
        super().__init__()
        self.sizes = module.sizes
        paligemma: Any = module.paligemma_with_expert.paligemma.model
        vision = paligemma.vision_tower.vision_model
        self.embeddings, self.post_layernorm = vision.embeddings, vision.post_layernorm
        self.project = paligemma.multi_modal_projector.linear
        self.embed_tokens = module.language_model.embed_tokens
        seeing = _suited(vision.encoder, linears)
        reading = _suited(module.language_model.layers, linears)
        self.traceable = (seeing.traceable, reading.traceable)
        self.vision_layers = nn.ModuleList(
            FusedVisionLayer(layer, seeing) for layer in vision.encoder.layers
        )
        *layers, last = cast(list[PrefixLayer], list(module.language_model.layers))
        self.layers = nn.ModuleList(
            FusedPrefixLayer(layer, self.sizes.llm, reading) for layer in layers
        )
        self.last = LastPrefixLayer(last, self.sizes.llm, reading)
        self._see: Callable[..., Tensor] = FusedVisionLayer.forward
        self._read: Callable[..., tuple[Tensor, KeysValues]] = FusedPrefixLayer.forward
        self._finish: Callable[..., KeysValues] = LastPrefixLayer.forward

    def compile(self) -> None:
        """torch.compile one layer of each stack, or what stands between products it cannot trace.

        All layers of a stack share the code.
        """
        seeing, reading = self.traceable
        if seeing:
            self._see = _compiled(self._see)
        else:
            attend = _compiled(attend_image)
            for layer in self.vision_layers:
                cast(FusedVisionLayer, layer).attend = attend
        if reading:
            self._read, self._finish = _compiled(self._read), _compiled(self._finish)
        else:
            attend_words = _compiled(attend_prefix)
            for layer in self.layers:
                cast(FusedPrefixLayer, layer).attend = attend_words

    def encode_images(self, images: Tensor) -> Tensor:
        """(cameras, 3, px, px) in [-1, 1] → (cameras * tokens, LLM width)."""
        x = self.embeddings(images).to(self.post_layernorm.weight.dtype)
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
        seen = self.encode_images(images)
        words = self.embed_tokens(prompt) * self.sizes.llm.width**0.5
        x = torch.cat((seen, words.to(seen.dtype)))
        table = rotary_table(torch.arange(len(x), device=x.device), self.sizes.llm.head_dim)
        caches = []
        for layer in self.layers:
            x, cache = self._read(layer, x, table)
            caches.append(cache)
        return (*caches, self._finish(self.last, x, table))


def attend_image(qkv: Tensor, images: int, heads: int) -> Tensor:
    """Attention among the patches of each image: (images * patches, 3 * width) → (…, width)."""
    q, k, v = qkv.view(images, len(qkv) // images, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)


def attend_prefix(qkv: Tensor, table: KeysValues, sizes: StackSizes) -> tuple[Tensor, KeysValues]:
    """Attention among all tokens: (tokens, heads * head_dim), and rotated keys, and values."""
    q, k, v = split_heads(qkv, [sizes.heads, sizes.kv_heads, sizes.kv_heads])
    q, k = rotate(q, table), rotate(k, table)
    folded = q.reshape(1, sizes.kv_heads, -1, sizes.head_dim)
    mixed = F.scaled_dot_product_attention(folded, k, v)
    return mixed.view(sizes.heads, len(qkv), -1).transpose(0, 1).flatten(1), (k, v)


def split_heads(merged_heads: Tensor, heads: list[int]) -> tuple[Tensor, ...]:
    """(tokens, heads * head_dim) → for each entry n of `heads`, (1, n, tokens, head_dim)."""
    split = merged_heads.view(len(merged_heads), sum(heads), -1).transpose(0, 1)
    return torch.split(split[None], heads, dim=1)


def norm_record(norm: RmsNorm | nn.LayerNorm) -> Norm:
    """The norm's tensors in float32."""
    weight = norm.weight.detach().float()
    if isinstance(norm, nn.LayerNorm):
        return Norm(weight, norm.bias.detach().float())
    return Norm(1.0 + weight)


def _suited(stack: nn.Module, linears: PrefixLinears | None) -> PrefixLinears:
    names = ("_proj", "fc1", "fc2")
    products = [child for name, child in stack.named_modules() if name.endswith(names)]
    quantized = not all(isinstance(product, nn.Linear) for product in products)
    return linears if linears is not None and quantized else PlainPrefixLinears()


def _compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    return torch.compile(function, fullgraph=True, dynamic=False)
