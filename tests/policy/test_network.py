"""The network against transformers' Gemma and SigLIP, and against itself without a cache."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.policy.pi05 import Pi05, time_features
from duqsweep.policy.siglip import merge_patches


def inputs(sizes: PolicySizes, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    px = sizes.vision.image_px
    images = torch.rand(batch, sizes.cameras, 3, px, px, generator=generator) * 2 - 1
    prompt = torch.randint(0, sizes.vocabulary, (batch, 7), generator=generator)
    actions = torch.randn(batch, sizes.horizon, sizes.action_dim, generator=generator)
    return images, prompt, actions


@pytest.fixture(scope="module")
def transformers() -> Iterator[Any]:
    """The package without torchvision: built for CUDA, it fails to import beside a CPU torch."""
    find_spec = importlib.util.find_spec

    def without_torchvision(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name.split(".")[0] == "torchvision" else find_spec(name, package)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", without_torchvision)
        yield pytest.importorskip("transformers")


def test_image_encoder_equals_transformers_siglip(
    transformers: Any, network: Pi05, sizes: PolicySizes
) -> None:
    vision = sizes.vision
    config = transformers.SiglipVisionConfig(
        hidden_size=vision.width,
        intermediate_size=vision.mlp,
        num_hidden_layers=vision.depth,
        num_attention_heads=vision.heads,
        image_size=vision.image_px,
        patch_size=vision.patch_px,
        vision_use_head=False,
    )
    theirs = transformers.SiglipVisionModel(config).eval()
    ours = network.paligemma_with_expert.paligemma.model.vision_tower.vision_model
    prefix = "vision_model." if any(n.startswith("vision") for n in theirs.state_dict()) else ""
    missing, unexpected = theirs.load_state_dict(
        {prefix + name: value for name, value in ours.state_dict().items()}, strict=False
    )
    assert not missing
    assert not unexpected
    images, _, _ = inputs(sizes)
    with torch.no_grad():
        expected = theirs(pixel_values=images[:, 0]).last_hidden_state
    torch.testing.assert_close(ours(images[:, 0]), expected, atol=2e-6, rtol=1e-5)


def test_prefix_keys_and_values_equal_transformers_gemma(
    transformers: Any, network: Pi05, sizes: PolicySizes
) -> None:
    llm = sizes.llm
    config = transformers.GemmaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=llm.width,
        intermediate_size=llm.mlp,
        num_hidden_layers=llm.depth,
        num_attention_heads=llm.heads,
        num_key_value_heads=llm.kv_heads,
        head_dim=llm.head_dim,
        hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh",
        use_bidirectional_attention=True,
        attn_implementation="eager",
        pad_token_id=None,
    )
    theirs = transformers.GemmaModel(config).eval()
    theirs.load_state_dict(network.language_model.state_dict(), strict=False)
    images, prompt, _ = inputs(sizes)
    tokens = network.encode_images(images)
    words = network.language_model.embed_tokens(prompt) * llm.width**0.5
    embedded = torch.cat((tokens, words), dim=1)
    length = embedded.shape[1]
    with torch.no_grad():
        cache = theirs(
            inputs_embeds=embedded / _their_embedding_factor(transformers, llm.width),
            attention_mask=torch.zeros(2, 1, length, length),
            use_cache=True,
        ).past_key_values
    for layer, (keys, values) in enumerate(network.prefix(tokens, prompt)):
        theirs_k, theirs_v = cache.layers[layer].keys, cache.layers[layer].values
        torch.testing.assert_close(keys, theirs_k, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(values, theirs_v, atol=2e-5, rtol=1e-4)


def _their_embedding_factor(transformers: object, width: int) -> float:
    """The factor that GemmaModel applies to `inputs_embeds`, which differs between releases."""
    import inspect

    source = inspect.getsource(transformers.GemmaModel.forward)  # type: ignore[attr-defined]
    return float(torch.tensor(width**0.5)) if "normalizer" in source else 1.0


def test_cached_velocity_equals_one_forward_over_prefix_and_actions(
    network: Pi05, sizes: PolicySizes
) -> None:
    images, prompt, actions = inputs(sizes)
    times = torch.tensor([0.7, 0.2])
    cache = network.prefix(network.encode_images(images), prompt)
    cached = network.velocity(actions, cache, network.modulation(times))
    joint = _joint_velocity(network, images, prompt, actions, times)
    torch.testing.assert_close(cached, joint, atol=1e-5, rtol=1e-4)


def _joint_velocity(
    network: Pi05, images: Tensor, prompt: Tensor, actions: Tensor, times: Tensor
) -> Tensor:
    """Both stacks together in one masked attention, as in openpi's training, written out."""
    sizes = network.sizes
    llm, expert = network.language_model, network.expert
    words = llm.embed_tokens(prompt) * sizes.llm.width**0.5
    x = torch.cat((network.encode_images(images), words), dim=1)
    y = network.action_in_proj(actions)
    condition = time_features(times, sizes.expert.width)
    condition = F.silu(network.time_mlp_out(F.silu(network.time_mlp_in(condition))))
    prefix, total = x.shape[1], x.shape[1] + y.shape[1]
    seen = torch.ones(total, total, dtype=torch.bool)
    seen[:prefix, prefix:] = False
    for below, above in zip(llm.layers, expert.layers, strict=True):
        x_in = _rms(x) * (1 + below.input_layernorm.weight)
        scale, shift, gate = above.input_layernorm.dense(condition)[:, None].chunk(3, -1)
        y_in = _rms(y) * (1 + scale) + shift
        mixed = _attend(below.self_attn, above.self_attn, x_in, y_in, seen, sizes)
        x = x + below.self_attn.o_proj(mixed[:, :prefix])
        y = y + gate * above.self_attn.o_proj(mixed[:, prefix:])
        x = x + _mlp(below.mlp, _rms(x) * (1 + below.post_attention_layernorm.weight))
        scale, shift, gate = above.post_attention_layernorm.dense(condition)[:, None].chunk(3, -1)
        y = y + gate * _mlp(above.mlp, _rms(y) * (1 + scale) + shift)
    scale, shift, _ = expert.norm.dense(condition)[:, None].chunk(3, -1)
    return network.action_out_proj(_rms(y) * (1 + scale) + shift)


def _rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def _mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    return mlp.down_proj(F.gelu(mlp.gate_proj(x), approximate="tanh") * mlp.up_proj(x))


def _attend(
    below: nn.Module, above: nn.Module, x: Tensor, y: Tensor, seen: Tensor, sizes: PolicySizes
) -> Tensor:
    heads, kv_heads, width = sizes.llm.heads, sizes.llm.kv_heads, sizes.llm.head_dim
    q = torch.cat((below.q_proj(x), above.q_proj(y)), dim=1)
    k = torch.cat((below.k_proj(x), above.k_proj(y)), dim=1)
    v = torch.cat((below.v_proj(x), above.v_proj(y)), dim=1)
    outputs = []
    for head in range(heads):
        shared = head // (heads // kv_heads)
        qh = _turn(q[..., head * width : (head + 1) * width])
        kh = _turn(k[..., shared * width : (shared + 1) * width])
        scores = qh @ kh.mT / width**0.5
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        outputs.append(weights @ v[..., shared * width : (shared + 1) * width])
    return torch.cat(outputs, dim=-1)


def _turn(x: Tensor) -> Tensor:
    """Rotary positions as complex numbers: pair channel j with channel j + half."""
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half) / half)
    phase = torch.arange(x.shape[1])[:, None] * frequency
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(phase), phase
    )
    return torch.cat((turned.real, turned.imag), dim=-1)


def test_merging_joins_neighbouring_squares() -> None:
    patches = torch.arange(16.0).view(1, 16, 1)  # a 4 x 4 picture, row by row
    merged = merge_patches(patches, 2)
    assert merged[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_merging_one_patch_changes_nothing() -> None:
    patches = torch.randn(2, 16, 3)
    assert merge_patches(patches, 1) is patches


def test_time_features_are_sines_then_cosines_of_geometric_periods() -> None:
    features = time_features(torch.tensor([0.0, 1.0]), 8)
    assert features[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    # Period 4 at the last frequency: a quarter turn at time 1.
    torch.testing.assert_close(features[1, 3], torch.tensor(1.0))
