"""The denoising loop with Triton kernels against the network's own Euler steps."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Literal

import pytest
import torch
import triton
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import EXPERT, PolicySizes, StackSizes, linear_layers, sizes_of
from duqsweep.errors import EvaluationError
from duqsweep.inference.merged_expert import merge_expert
from duqsweep.inference.triton_expert import LONGEST_PREFIX, TritonExpert
from duqsweep.kernels.expert.tiling import (
    TILE_CONFIGS,
    AttentionTileConfig,
    LayerTileConfigs,
    TileConfig,
)
from duqsweep.kernels.launches import counted
from duqsweep.policy.pi05 import Pi05, PrefixCache
from duqsweep.policy.schedule import step_sizes
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.spec import UNIFORM, Kernel, LayerRule, QuantSpec, Schedule

# The interpreter computes the rows behind the tokens, which hold NaN here, with numpy.
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPE = torch.bfloat16 if GPU else torch.float32
STEPS = 2
WIDE = TileConfig(64, 2, 4)
FEW_PROGRAMS = dict.fromkeys(
    (16, 8, 4), LayerTileConfigs(WIDE, WIDE, WIDE, WIDE, AttentionTileConfig(rows=64, keys=128))
)


def sizes(horizon: int) -> PolicySizes:
    """Two layers, of the full-size expert on a GPU and of a small one elsewhere."""
    depth = 2
    if GPU:
        stack = StackSizes(width=1024, depth=depth, mlp=4096, heads=8, kv_heads=1, head_dim=256)
    else:
        stack = StackSizes(width=64, depth=depth, mlp=128, heads=4, kv_heads=2, head_dim=32)
    small = replace(stack, width=32, mlp=32)
    return replace(sizes_of("embedded"), llm=small, expert=stack, horizon=horizon)


def random_policy(horizon: int) -> Pi05:
    """Every parameter is random, including adaptive norms."""
    torch.manual_seed(horizon)
    module = Pi05(sizes(horizon))
    with torch.no_grad():
        for value in module.parameters():
            scale = 0.2 if value.ndim == 1 else value[0].numel() ** -0.5
            value.normal_(std=scale)
    return module.eval().to(DEVICE, DTYPE)


def random_prefix(module: Pi05, tokens: int) -> PrefixCache:
    stack = module.sizes.expert
    shape = (1, stack.kv_heads, tokens, stack.head_dim)

    def rows() -> Tensor:
        return torch.randn(shape).to(DEVICE, DTYPE)

    return tuple((rows(), rows()) for _ in range(stack.depth))


def step_by_step(
    module: Pi05, cache: PrefixCache, noise: Tensor, schedule: Schedule = UNIFORM
) -> Tensor:
    actions = noise[None]
    sizes = step_sizes(STEPS, schedule)
    for modulation, size in zip(module.modulations(STEPS, schedule).unbind(1), sizes, strict=True):
        velocity = module.velocity(actions.to(DTYPE), cache, modulation[:, None])
        actions = actions - velocity.float() * size
    return actions[0]


def quantized(module: Pi05, cache: PrefixCache, noise: Tensor, quant: QuantSpec) -> Pi05:
    module = copy.deepcopy(module)
    bits = select_layers(quant, linear_layers(module.sizes))

    def run() -> None:
        step_by_step(module, cache, noise)

    stats = calibrate(module, bits, quant, run)
    freeze(module, bits, quant, stats, None, "random")
    return module


def moved(actions: Tensor, noise: Tensor, expected: Tensor) -> float:
    """The distance from the expected actions, relative to their distance from the noise."""
    return float((actions - expected).norm() / (expected - noise).norm())


def poison(expert: TritonExpert) -> None:
    for name, value in vars(expert.buffers).items():
        for tensor in value if isinstance(value, tuple) else (value,):
            tensor.fill_(7 if name == "codes" else torch.nan)


@pytest.mark.parametrize(
    ("horizon", "prefix", "schedule"), [(17, 37, UNIFORM), (3, 5, Schedule("shifted", 4.0))]
)
@torch.no_grad()
def test_unquantized_loop_gives_the_actions_of_the_network(
    horizon: int, prefix: int, schedule: Schedule
) -> None:
    module = random_policy(horizon)
    cache = random_prefix(module, prefix)
    noise = torch.randn(horizon, module.sizes.action_dim, device=DEVICE)
    merged = merge_expert(module, STEPS, schedule)
    expert = TritonExpert(merged, TILE_CONFIGS if GPU else FEW_PROGRAMS)
    poison(expert)
    actions = expert.denoise(noise, expert.prepare(cache))
    expected = step_by_step(module, cache, noise, schedule)
    assert moved(actions, noise, expected) < (2e-2 if GPU else 1e-5)


@pytest.mark.parametrize(
    ("kernel", "form", "block", "group"),
    [("int8", "w8a8", 16, 0), ("w4a8", "w4a8", 64, 32)],
)
@torch.no_grad()
def test_quantized_loop_gives_the_actions_of_kernel_fake(
    kernel: Kernel, form: str, block: Literal[16, 64], group: int
) -> None:
    rule = LayerRule(include=re.escape(EXPERT), weight_bits=4, act_bits=8)
    fake = QuantSpec(rules=(rule,), block_size=block, weight_group_size=group)
    module = random_policy(horizon=10)
    cache = random_prefix(module, tokens=21)
    noise = torch.randn(10, module.sizes.action_dim, device=DEVICE)
    expected = step_by_step(quantized(module, cache, noise, fake), cache, noise)
    module = quantized(module, cache, noise, replace(fake, kernel=kernel))
    cuts = TILE_CONFIGS if GPU else FEW_PROGRAMS
    expert = TritonExpert(merge_expert(module, STEPS), cuts)
    poison(expert)
    with counted() as counts:
        actions = expert.denoise(noise, expert.prepare(cache))
    assert moved(actions, noise, expected) < (2e-2 if GPU else 1e-3)
    layers = STEPS * module.sizes.expert.depth
    assert counts == {
        f"expert_qkv_{form}": layers,
        "expert_attention": layers,
        "expert_combine_partials": layers,
        "expert_norm_quant": 2 * layers,
        "expert_quant": layers,
        f"expert_gate_up_{form}": layers,
        f"expert_linear_residual_{form}": 2 * layers,
        "expert_euler_step": STEPS + 1,
    }


@torch.no_grad()
def test_a_prefix_without_room_for_its_chunks_is_refused() -> None:
    module = random_policy(horizon=10)
    expert = TritonExpert(merge_expert(module, STEPS))
    prefix = expert.prepare(random_prefix(module, LONGEST_PREFIX + 64))
    with pytest.raises(EvaluationError, match="2038 prefix tokens at most, got 2048"):
        expert.denoise(torch.zeros(10, module.sizes.action_dim, device=DEVICE), prefix)


@torch.no_grad()
def test_only_linear_layers_have_weights_and_kernels_need_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = random_policy(horizon=1)
    merged = merge_expert(module, STEPS)
    module.expert.get_submodule("layers.0.mlp").down_proj = nn.Identity()
    with pytest.raises(EvaluationError, match="expected a linear layer, got a Identity"):
        merge_expert(module, STEPS)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    if not GPU:
        with pytest.raises(EvaluationError, match="run on a CUDA GPU, got cpu"):
            TritonExpert(merged)
