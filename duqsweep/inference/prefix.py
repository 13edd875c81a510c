"""Images and prompt to the prefix cache in few kernels, for one observation at a time.

Computes the same as `Pi05.encode_images` and `Pi05.prefix`. Merged are q, k and v, and gate and up.
The last layer of the language model computes only keys and values: nothing reads the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import LLM, StackSizes, rows_a_pass
from duqsweep.inference.compiled import compiled
from duqsweep.inference.integer_products import QuantizedMlp, adds_up_parts
from duqsweep.inference.prefix_attention import Attend, attention_on
from duqsweep.inference.prefix_products import (
    GeluMlp,
    LinearResidual,
    NormLinear,
    linear_residual,
    mlp,
    norm_linear,
    norm_record,
)
from duqsweep.inference.weights import has_integers
from duqsweep.kernels.add_norm import add_norm
from duqsweep.kernels.gelu_linear import gelu_linear
from duqsweep.kernels.rotary import Rotary
from duqsweep.kernels.unfinished import Rows, finished
from duqsweep.policy.gemma import KeysValues, PrefixLayer, rotary_table
from duqsweep.policy.pi05 import Pi05, PrefixCache
from duqsweep.policy.siglip import SiglipEmbeddings, SiglipLayer, merge_patches

Result = TypeVar("Result")
Part = Callable[[], object]

ALIGNED = 8  # channels: a product is faster if its rows start at multiples of 16 bytes


class FusedPatches(nn.Module):
    """`SiglipEmbeddings` as one matrix product, which is faster than its convolution."""

    weight: Tensor

    def __init__(self, embeddings: SiglipEmbeddings) -> None:
        super().__init__()
        convolution = embeddings.patch_embedding
        self.patch = convolution.kernel_size[0]
        weight = convolution.weight.detach().flatten(1)
        self.more = -weight.shape[1] % ALIGNED
        self.register_buffer("weight", F.pad(weight, (0, self.more)))
        self.bias, self.position = convolution.bias, embeddings.position_embedding.weight

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, px, px) in [-1, 1] → (n, patches, width)."""
        side, patch = images.shape[-1] // self.patch, self.patch
        whole = images[..., : side * patch, : side * patch].to(self.weight.dtype)
        squares = whole.reshape(len(images), 3, side, patch, side, patch)
        rows = squares.permute(0, 2, 4, 1, 3, 5).reshape(len(images), side * side, -1)
        return F.linear(F.pad(rows, (0, self.more)), self.weight, self.bias) + self.position


class FusedVisionLayer(nn.Module):
    """One SigLIP layer; rows are the patches of all images."""

    def __init__(self, layer: SiglipLayer) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads = attention.heads
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        dtype, device = layer.layer_norm1.weight.dtype, layer.layer_norm1.weight.device
        self.qkv = norm_linear(norm_record(layer.layer_norm1), projections, dtype)
        self.out = linear_residual(attention.out_proj, dtype)
        self.attend = _attention_before(self.out, device)
        norm = norm_record(layer.layer_norm2)
        self.mlp = mlp(norm, [layer.mlp.fc1, layer.mlp.fc2], dtype)

    def forward(self, x: Rows, images: int) -> Rows:
        """(images * patches, width) → the same shape."""
        qkv = _projected(self.qkv, x)
        x = finished(x)
        mixed = self.attend(qkv, images, self.heads, x.shape[1] // self.heads)
        made: Rows = self.mlp(self.out(mixed, x))
        return made

    def parts(self, rows: Tensor, images: int) -> list[Part]:
        """See `FusedPrefix.parts`."""
        width = rows.shape[1]
        qkv = rows.new_zeros(len(rows), 3 * width)
        mixed = partial(self.attend, qkv, images, self.heads, width // self.heads)
        found: list[Part] = [lambda: self.out(mixed(), rows)]
        if self.is_plain:
            norm = cast(NormLinear, self.qkv).norm
            return [*found, lambda: add_norm(rows, rows, norm.weight, norm.bias)]
        return [*found, lambda: self.qkv(rows), *_mlp_parts(self.mlp, rows)]

    @property
    def is_plain(self) -> bool:
        """Whether no product is quantized: then `forward_deferred` computes the same."""
        products = (self.qkv, self.out, self.mlp)
        kinds = (NormLinear, LinearResidual, GeluMlp)
        return all(isinstance(*pair) for pair in zip(products, kinds, strict=True))

    def forward_deferred(self, x: Tensor, added: Tensor, images: int) -> tuple[Tensor, Tensor]:
        """The layer of x + added, without its last residual connection.

        So each residual connection is one kernel with the norm after it.

        Returns:
            The stream, and what is still to be added to it.
        """
        qkv = cast(NormLinear, self.qkv)
        out, both = cast(LinearResidual, self.out), cast(GeluMlp, self.mlp)
        x, rows = add_norm(x, added, qkv.norm.weight, qkv.norm.bias)
        mixed = self.attend(qkv.product(rows), images, self.heads, x.shape[1] // self.heads)
        x, rows = add_norm(x, out.product(mixed), both.norm.weight, both.norm.bias)
        return x, both.last.product(gelu_linear(rows, both.weight, both.bias))


class FusedPrefixLayer(nn.Module):
    """One layer of the language model."""

    def __init__(self, layer: PrefixLayer, sizes: StackSizes, dtype: torch.dtype) -> None:
        """Merge the weights.

        Args:
            layer: Its norms may be in another dtype than what it computes.
            sizes: Of the language model.
            dtype: Of what it computes.
        """
        super().__init__()
        self.sizes = sizes
        attention = layer.self_attn
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        rotary = Rotary(sizes.head_dim, sizes.heads + sizes.kv_heads)
        device = layer.input_layernorm.weight.device
        self.qkv = norm_linear(norm_record(layer.input_layernorm), projections, dtype, rotary)
        self.o = linear_residual(attention.o_proj, dtype)
        self.attend = _attention_before(self.o, device)
        parts = [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]
        self.mlp = mlp(norm_record(layer.post_attention_layernorm), parts, dtype)

    def forward(self, x: Rows, table: KeysValues) -> tuple[Rows, KeysValues]:
        """(tokens, width) → the same shape, and (1, kv_heads, tokens, head_dim) keys and values."""
        qkv = _projected(self.qkv, x, table)
        x = finished(x)
        mixed = self.attend(qkv, 1, self.sizes.kv_heads, self.sizes.head_dim)
        return self.mlp(self.o(mixed, x)), keys_values(qkv, self.sizes)

    def parts(self, rows: Tensor, table: KeysValues) -> list[Part]:
        """See `FusedPrefix.parts`."""
        sizes = self.sizes
        qkv = rows.new_zeros(len(rows), (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim)
        mixed = partial(self.attend, qkv, 1, sizes.kv_heads, sizes.head_dim)
        attention: list[Part] = [
            lambda: _projected(self.qkv, rows, table),
            lambda: self.o(mixed(), rows),
        ]
        return [*_mlp_parts(self.mlp, rows), *attention]


class LastPrefixLayer(nn.Module):
    """The last layer of the language model, reduced to its keys and values."""

    def __init__(self, layer: PrefixLayer, sizes: StackSizes, dtype: torch.dtype) -> None:
        """See `FusedPrefixLayer`."""
        super().__init__()
        self.sizes = sizes
        projections = [layer.self_attn.k_proj, layer.self_attn.v_proj]
        rotary = Rotary(sizes.head_dim, sizes.kv_heads)
        self.kv = norm_linear(norm_record(layer.input_layernorm), projections, dtype, rotary)

    def forward(self, x: Rows, table: KeysValues) -> KeysValues:
        """(tokens, width) → (1, kv_heads, tokens, head_dim) each."""
        return keys_values(_projected(self.kv, x, table), self.sizes)


class FusedPrefix(nn.Module):
    """Computes the cache that the expert reads from images and prompt tokens."""

    def __init__(self, module: Pi05) -> None:
        """Merge the weights; those of `module` are not changed."""
        super().__init__()
        self.sizes = module.sizes
        paligemma: Any = module.paligemma_with_expert.paligemma.model
        vision = paligemma.vision_tower.vision_model
        self.embeddings = FusedPatches(vision.embeddings)
        self.post_layernorm = vision.post_layernorm
        self._post_norm = norm_record(vision.post_layernorm)
        self.project = paligemma.multi_modal_projector.linear
        self.embed_tokens = module.language_model.embed_tokens
        stacks = (vision.encoder, module.language_model.layers)
        self.traceable = tuple(not has_integers(stack) for stack in stacks)
        vision_layers = list(map(FusedVisionLayer, vision.encoder.layers))
        self.vision_layers = nn.ModuleList(vision_layers)
        # torch.compile adds and norms faster on a CPU.
        on_gpu = self.embed_tokens.weight.device.type == "cuda"
        self.deferred = on_gpu and all(layer.is_plain for layer in vision_layers)
        *layers, last = cast(list[PrefixLayer], list(module.language_model.layers))
        given = (self.sizes.llm, self.embed_tokens.weight.dtype)
        self.layers = nn.ModuleList(FusedPrefixLayer(layer, *given) for layer in layers)
        self.last = LastPrefixLayer(last, *given)
        longest = rows_a_pass(self.sizes, self.sizes.cameras, self.sizes.prompt_tokens)[LLM]
        positions = torch.arange(longest, device=self.embed_tokens.weight.device)
        self.cosines, self.sines = rotary_table(positions, self.sizes.llm.head_dim)
        self._embed_patches: Callable[..., Tensor] = FusedPatches.forward
        self._vision_layer: Callable[..., Rows] = FusedVisionLayer.forward
        self._llm_layer: Callable[..., tuple[Rows, KeysValues]] = FusedPrefixLayer.forward
        self._last_layer: Callable[..., KeysValues] = LastPrefixLayer.forward

    def compile(self, any_length: bool = False) -> None:
        """Compile one layer per stack that torch.compile can trace; all layers share its code.

        Image layers in the deferred form are not compiled: each of their operators is one kernel
        anyway, and a policy without other layers to compile does not wait for the compiler.

        Args:
            any_length: Compile once for prompts of all lengths; otherwise once per length.
        """
        vision, llm = self.traceable
        if vision and not self.deferred:
            self._embed_patches = compiled(self._embed_patches, dynamic=False)
            self._vision_layer = compiled(self._vision_layer, dynamic=False)
        if llm:
            serve = _any_length if any_length else _unchanged
            self._llm_layer = serve(compiled(self._llm_layer, dynamic=False))
            self._last_layer = serve(compiled(self._last_layer, dynamic=False))

    def parts(self, images: int, tokens: int) -> list[Part]:
        """Parts of the first layers that torch.compile has nothing to do with, as functions.

        What they compute is of no use; the kernels that they compile are those of all layers.

        Args:
            images: Of a call.
            tokens: Of its prompt.
        """
        found: list[Part] = []
        traced_vision, traced_llm = self.traceable
        like, each = self.embed_tokens.weight, self.sizes.vision.patches_per_side**2
        if not traced_vision or self.deferred:
            rows = self.post_layernorm.weight.new_zeros(images * each, self.sizes.vision.width)
            found += cast(FusedVisionLayer, self.vision_layers[0]).parts(rows, images)
        if not traced_llm and len(self.layers):
            length = images * self.sizes.vision.tokens + tokens
            table = (self.cosines[:length], self.sines[:length])
            words = like.new_zeros(length, self.sizes.llm.width)
            found += cast(FusedPrefixLayer, self.layers[0]).parts(words, table)
        return found

    def encode_images(self, images: Tensor) -> Tensor:
        """(cameras, 3, px, px) in [-1, 1] → (cameras * tokens, LLM width)."""
        x = self._embed_patches(self.embeddings, images).to(self.post_layernorm.weight.dtype)
        rows = x.flatten(0, 1)
        if self.deferred:
            added = torch.zeros_like(rows)
            for layer in self.vision_layers:
                deferred = cast(FusedVisionLayer, layer).forward_deferred
                rows, added = deferred(rows, added, len(images))
            _, normed = add_norm(rows, added, self._post_norm.weight, self._post_norm.bias)
        else:
            encoded: Rows = rows
            for layer in self.vision_layers:
                encoded = self._vision_layer(layer, encoded, len(images))
            normed = self.post_layernorm(finished(encoded))
        x = normed.view(x.shape)
        merged_patches = merge_patches(x, self.sizes.vision.merge)
        return cast(Tensor, self.project(merged_patches).flatten(0, 1))

    def forward(self, images: Tensor, prompt: Tensor) -> PrefixCache:
        """Keys and values of the prefix, batch 1.

        Args:
            images: (cameras, 3, px, px) in [-1, 1].
            prompt: (tokens,) token ids, without padding.
        """
        return self.encode_prefix(self.encode_images(images), prompt)

    def encode_prefix(self, image_tokens: Tensor, prompt: Tensor) -> PrefixCache:
        """The prefix cache from the result of `encode_images` and the prompt."""
        words = self.embed_tokens(prompt) * self.sizes.llm.width**0.5
        x = torch.cat((image_tokens, words.to(image_tokens.dtype)))
        table = (self.cosines[: len(x)], self.sines[: len(x)])
        caches = []
        rows: Rows = x
        for layer in self.layers:
            rows, cache = self._llm_layer(layer, rows, table)
            caches.append(cache)
        return (*caches, self._last_layer(self.last, rows, table))


def keys_values(rows: Tensor, sizes: StackSizes) -> KeysValues:
    """Split off the last heads of (tokens, heads * head_dim): (1, kv_heads, tokens, head_dim)."""
    heads = rows.view(len(rows), -1, sizes.head_dim).transpose(0, 1)[None]
    keys, values = heads[:, -2 * sizes.kv_heads :].chunk(2, dim=1)
    return keys, values


def _projected(product: nn.Module, x: Rows, table: KeysValues | None = None) -> Tensor:
    """Norm, products and rotary positions of x; those of integers finish it."""
    made: Tensor = product(x if adds_up_parts(product) else finished(x), table=table)
    return made


def _mlp_parts(mlp: nn.Module, rows: Tensor) -> list[Part]:
    return mlp.parts(rows) if isinstance(mlp, QuantizedMlp) else [lambda: mlp(rows)]


def _attention_before(product: nn.Module, device: torch.device) -> Attend:
    """Attention whose result that product reads."""
    return attention_on(device, in_parts=adds_up_parts(product))


def _any_length(function: Callable[..., Result]) -> Callable[..., Result]:
    """Compile the function once for tensors of any number of rows."""

    def call(*arguments: Any) -> Result:
        for argument in arguments:
            for tensor in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(tensor, Tensor):
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return function(*arguments)

    return call


def _unchanged(function: Callable[..., Result]) -> Callable[..., Result]:
    return function
