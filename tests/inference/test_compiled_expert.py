"""The fused denoising loop against Euler steps along `Pi05.velocity`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, VisionSizes, sizes_of
from duqsweep.inference import compiled_layer
from duqsweep.inference.compiled_expert import CompiledExpert
from duqsweep.policy.pi05 import Pi05, PrefixCache

MANY_HEADS_ONE_KEY = PolicySizes(
    vision=VisionSizes(width=16, depth=1, mlp=16, heads=2, patch_px=8, image_px=16),
    llm=StackSizes(width=32, depth=2, mlp=48, heads=8, kv_heads=1, head_dim=16),
    expert=StackSizes(width=16, depth=2, mlp=32, heads=8, kv_heads=1, head_dim=16),
    horizon=5,
    action_dim=9,
    vocabulary=20,
    prompt_tokens=8,
    cameras=2,
)
SIZES = {"embedded": sizes_of("embedded"), "like pi05": MANY_HEADS_ONE_KEY}


def random_policy(sizes: PolicySizes) -> Pi05:
    """Every parameter is random, including adaptive norms."""
    torch.manual_seed(0)
    module = Pi05(sizes)
    with torch.no_grad():
        for value in module.parameters():
            scale = 0.2 if value.ndim == 1 else value[0].numel() ** -0.5
            value.normal_(std=scale)
    return module.eval()


def prefix_of(module: Pi05, prompt_tokens: int) -> PrefixCache:
    sizes = module.sizes
    px = sizes.vision.image_px
    images = torch.rand(1, sizes.cameras, 3, px, px) * 2 - 1
    prompt = torch.randint(sizes.vocabulary, (1, prompt_tokens))
    return module.prefix(module.encode_images(images), prompt)


def step_by_step(module: Pi05, cache: PrefixCache, noise: Tensor, steps: int) -> Tensor:
    actions = noise[None]
    for modulation in module.modulations(steps).unbind(1):
        actions = actions - module.velocity(actions, cache, modulation[:, None]) / steps
    return actions[0]


@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
def test_fused_loop_gives_the_same_actions(name: str) -> None:
    module = random_policy(SIZES[name])
    fused = CompiledExpert(module, num_steps=4)
    cache = prefix_of(module, prompt_tokens=6)
    noise = torch.randn(module.sizes.horizon, module.sizes.action_dim)
    expected = step_by_step(module, cache, noise, steps=4)
    actions = fused.denoise(noise, fused.prepare(cache))
    assert (actions - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_prompts_of_other_lengths_share_a_shape_where_there_is_room() -> None:
    module = random_policy(MANY_HEADS_ONE_KEY)
    fused = CompiledExpert(module, num_steps=3, pad_multiple=16)
    noise = torch.randn(module.sizes.horizon, module.sizes.action_dim)
    for prompt_tokens, keys in ((1, 16), (3, 16), (4, 32), (8, 32)):  # 8 of images, 5 of actions
        cache = prefix_of(module, prompt_tokens)
        prepared = fused.prepare(cache)
        assert {value.shape[1] for pair in prepared.caches for value in pair} == {keys}
        expected = step_by_step(module, cache, noise, steps=3)
        actions = fused.denoise(noise, prepared)
        assert (actions - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_a_second_call_does_not_see_the_first() -> None:
    module = random_policy(MANY_HEADS_ONE_KEY)
    fused = CompiledExpert(module, num_steps=2)
    prefix = fused.prepare(prefix_of(module, prompt_tokens=3))
    noise = torch.randn(5, 9)
    first = fused.denoise(noise, prefix)
    fused.denoise(torch.randn(5, 9), prefix)
    assert torch.equal(fused.denoise(noise, prefix), first)


@torch.no_grad()
def test_fusing_leaves_the_policy_and_its_cache_as_they_were() -> None:
    module = random_policy(MANY_HEADS_ONE_KEY)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    cache = prefix_of(module, prompt_tokens=3)
    kept = [(keys.clone(), values.clone()) for keys, values in cache]
    fused = CompiledExpert(module, num_steps=2)
    fused.denoise(torch.randn(5, 9), fused.prepare(cache))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    for (keys, values), (old_keys, old_values) in zip(cache, kept, strict=True):
        assert torch.equal(keys, old_keys)
        assert torch.equal(values, old_values)


@torch.no_grad()
def test_bfloat16_stays_close() -> None:
    module = random_policy(MANY_HEADS_ONE_KEY)
    cache = prefix_of(module, prompt_tokens=6)
    noise = torch.randn(5, 9)
    expected = step_by_step(module, cache, noise, steps=4)
    half = module.to(torch.bfloat16)
    cache = tuple((keys.bfloat16(), values.bfloat16()) for keys, values in cache)
    fused = CompiledExpert(half, num_steps=4)
    actions = fused.denoise(noise, fused.prepare(cache))
    assert actions.dtype == torch.float32
    assert (actions - expected).norm() <= 0.03 * expected.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while it compiles
@torch.no_grad()
def test_compiled_loop_gives_the_same_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """As C++ without vectors, which gcc takes half as long to compile."""
    plain = {"cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False}
    options = {**compiled_layer.cpu_options(), **plain}
    monkeypatch.setattr(compiled_layer, "cpu_options", lambda: options)
    module = random_policy(MANY_HEADS_ONE_KEY)
    fused = CompiledExpert(module, num_steps=2)
    prefix = fused.prepare(prefix_of(module, prompt_tokens=3))
    noise = torch.randn(5, 9)
    expected = fused.denoise(noise, prefix)
    fused.compile()
    actions = fused.denoise(noise, prefix)
    assert (actions - expected).abs().max() <= 1e-5 * expected.abs().max()
