"""The persistent kernel: each stage against float64, and the actions against kernel `fake`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from expert_reference import error, normed, random_codes, random_e4m3, rounded, times, turned
from test_triton_expert import moved, quantized, random_policy, random_prefix, step_by_step
from torch import Tensor

from duqsweep.checkpoint.sizes import EXPERT
from duqsweep.inference.merged_expert import MergedExpert, merge_expert
from duqsweep.inference.persistent_expert import PersistentExpert
from duqsweep.kernels import nvrtc
from duqsweep.kernels.expert.limits import SIZES
from duqsweep.kernels.expert.persistent import PRODUCTS, unsupported_reason
from duqsweep.kernels.expert.tiling import ExpertShape
from duqsweep.kernels.expert.weights import LayerProjections, LayerWeights, merge_layer
from duqsweep.kernels.launches import counted
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.quant.rotation import hadamard, rotate_blocks
from duqsweep.spec import Kernel, LayerRule, QuantSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0),
        reason="needs a GPU with thread block clusters",
    ),
]

WIDTH, HIDDEN, HEADS, DIM = 1024, 4096, 8, 256
ACTION, STEPS = 7, 2
Form = Literal[4, 8, "e4m3"]  # bits of integer weights, or e4m3
# Relative to the norm of the result. Products of codes are exact, but for float32 sums of e4m3. The
# rest is rounding to bf16, and codes of values halfway between two: in e4m3, these are up to an
# eighth of the value apart.
BOUND, E4M3_BOUND = 1e-2, 2e-2


@dataclass
class Kit:
    """A random expert of one layer and one step, and a random prefix."""

    merged: MergedExpert
    layer: LayerWeights
    expert: PersistentExpert
    cache: tuple[tuple[Tensor, Tensor], ...]
    noise: Tensor

    def stage(self, name: str) -> Tensor:
        """What the kernel left of the first iteration, in float64."""
        return self.expert.loop.buffers[name][0].double()


def kit(tokens: int, form: Form, block: int, prefix: int) -> Kit:
    torch.manual_seed(tokens + prefix)

    def made(out: int, width: int) -> ProjectionWeights:
        if form == "e4m3":
            return random_e4m3(out, width, block)
        return random_codes(out, width, form, block, False)

    q, k, v = (made(rows * DIM, WIDTH) for rows in (HEADS, 1, 1))
    gate, up = (made(HIDDEN, WIDTH) for _ in range(2))
    o, down = made(WIDTH, HEADS * DIM), made(WIDTH, HIDDEN)
    layer = merge_layer(LayerProjections((q, k, v), o, (gate, up), down))

    def rows(*sizes: int) -> Tensor:
        return torch.randn(sizes).to("cuda", torch.bfloat16)

    modulations = 0.3 * rows(3, 1, 3, WIDTH)
    modulations[:, :, 0] += 1
    merged = MergedExpert(
        shape=ExpertShape(tokens, **SIZES, action_dim=ACTION),
        layers=[layer],
        projections=(rows(ACTION, WIDTH) / 32, rows(ACTION), rows(WIDTH, ACTION), rows(WIDTH)),
        modulations=modulations,
        longest_prefix=prefix,
    )
    assert unsupported_reason(merged.shape, merged.layers, modulations.dtype) is None
    # Not contiguous, like those of a real prefix. Some keys have larger scores than others.
    keys_values = rows(1, prefix, 2, DIM)
    keys_values[:, :, 0] *= 3 * torch.rand(prefix, 1, device="cuda")
    keys, values = keys_values.transpose(1, 2).split(1, dim=1)
    noise = torch.randn(tokens, ACTION, device="cuda")
    return Kit(merged, layer, PersistentExpert(merged), ((keys, values),), noise)


def stored(values: Tensor) -> Tensor:
    """Rounded to bf16 once, in float64."""
    return values.bfloat16().double()


def poison(expert: PersistentExpert) -> None:
    for value in expert.loop.buffers.values():
        value.view(torch.uint8).fill_(77) if value.itemsize == 1 else value.fill_(torch.nan)


CASES = [
    # tokens, form of the weights, block, prefix
    (1, 4, 32, 3),
    (1, 8, 1, 77),
    (10, 4, 16, 534),
    (10, 4, 128, 77),
    (10, 8, 64, 533),
    (16, 4, 16, 640),
    (17, 8, 16, 37),
    (33, 4, 64, 101),
    (50, 4, 16, 534),
    (50, 8, 1, 77),
    (51, 4, 32, 333),
    (64, 8, 128, 534),
    (64, 4, 16, 640),
    # A token or three for each of 15 clusters, so that none has time to reset buffers.
    (15, 4, 16, 77),
    (45, 4, 16, 101),
    (45, 8, 16, 101),
    # Keys in two or more chunks per rank, some of whose ends lie within a tile of keys.
    (1, 4, 16, 1024),
    (1, 8, 16, 1600),
    (10, 4, 16, 1024),
    (10, 8, 64, 1024),
    (10, 4, 16, 1900),
    (10, 8, 16, 3000),
    (17, 4, 16, 1100),
    (50, 4, 16, 790),
    (50, 8, 16, 718),
    (50, 8, 16, 719),
    (50, 8, 16, 790),
    (50, 4, 16, 968),
    (50, 4, 16, 1024),
    (50, 8, 1, 1024),
    (50, 4, 16, 2222),
    (50, 8, 16, 2222),
    (64, 4, 16, 832),
    (64, 8, 128, 790),
    (64, 4, 16, 1024),
    (64, 8, 16, 1024),
    (1, "e4m3", 16, 77),
    (10, "e4m3", 16, 534),
    (10, "e4m3", 1, 1024),
    (16, "e4m3", 64, 534),
    (50, "e4m3", 16, 534),
    (50, "e4m3", 1, 968),
    (64, "e4m3", 128, 790),
]


@pytest.mark.parametrize(("tokens", "form", "block", "prefix"), CASES)
@torch.no_grad()
def test_each_stage_is_that_of_float64(tokens: int, form: Form, block: int, prefix: int) -> None:
    k = kit(tokens, form, block, prefix)
    bound = E4M3_BOUND if form == "e4m3" else BOUND
    poison(k.expert)
    actions = k.expert.denoise(k.noise, k.expert.prepare(k.cache)).double()
    out_weight, out_bias, in_weight, in_bias = (part.double() for part in k.merged.projections)
    first, second, last = (norm[0] for norm in k.merged.modulations)

    stream = stored(stored(k.noise) @ in_weight.T + in_bias)
    qkv = times(stored(normed(stream, first)), k.layer.qkv).view(tokens, HEADS + 2, DIM)
    prepared = k.expert.prepare(k.cache)
    table = (prepared.tensors["cosines"], prepared.tensors["sines"])
    expected = turned(qkv[:, :-1], table)
    assert error(k.stage("queries"), expected[:, :HEADS].flatten(1)) < bound
    assert error(k.stage("keys"), expected[:, HEADS]) < bound
    assert error(k.stage("values"), qkv[:, -1]) < bound

    # From here on, inputs are the kernel's own results, so that each stage is tested separately.
    keys, values = (
        torch.cat((part[0, 0].double(), k.stage(name)))
        for part, name in zip(k.cache[0], ("keys", "values"), strict=True)
    )
    queries = k.stage("queries").view(tokens, HEADS, DIM)
    mixed = stored((queries @ keys.T / DIM**0.5).softmax(-1) @ values)
    o = k.layer.o
    rotated = mixed.flatten(1)[:, o.permutation.long()]
    if block > 1:
        rotated = rotate_blocks(rotated, hadamard(block).to(rotated)[None])
    codes = k.stage("attn_codes") * k.stage("attn_scales")
    assert error(codes, rounded(rotated, o)) < 2 * bound
    stream = stored(stream + times(mixed.flatten(1), o) * first[2].double())
    gate, up = times(stored(normed(stream, second)), k.layer.gate_up).chunk(2, dim=1)
    hidden = F.gelu(gate, approximate="tanh") * up
    down = replace(k.layer.down, permutation=None)  # the kernel stores permuted channels
    assert error(k.stage("hidden"), hidden[:, k.layer.down.permutation.long()]) < 2 * bound
    stream = stream + times(k.stage("hidden"), down) * second[2].double()
    assert error(k.stage("stream"), stream) < bound
    velocity = normed(k.stage("stream"), last) @ out_weight.T + out_bias
    assert error(actions, k.noise.double() - velocity) < bound


@pytest.mark.parametrize(
    ("kernel", "form", "horizon", "block"),
    [
        ("int8", "w8a8", 10, 64),
        ("w4a8", "w4a8", 10, 16),
        ("w4a8", "w4a8", 50, 16),
        ("fp8", "e4m3", 10, 16),
        ("fp8", "e4m3", 50, 64),
    ],
)
@torch.no_grad()
def test_the_loop_gives_the_actions_of_kernel_fake(
    kernel: Kernel, form: str, horizon: int, block: Literal[16, 64]
) -> None:
    bits = 8 if kernel == "fp8" else 4
    rule = LayerRule(include=re.escape(EXPERT), weight_bits=bits, act_bits=8)
    fake = QuantSpec(rules=(rule,), block_size=block)
    if kernel == "fp8":
        fake = replace(fake, number_format="e4m3")
    module = random_policy(horizon)
    cache = random_prefix(module, tokens=21)
    noise = torch.randn(horizon, module.sizes.action_dim, device="cuda")
    expected = step_by_step(quantized(module, cache, noise, fake), cache, noise)
    exact = replace(fake, kernel=kernel, number_format="integer")
    module = quantized(module, cache, noise, exact)
    expert = PersistentExpert(merge_expert(module, STEPS))
    poison(expert)
    with counted() as counts:
        actions = expert.denoise(noise, expert.prepare(cache))
    # Numbers of e4m3 are up to an eighth apart, so that a code next to the other one costs more.
    assert moved(actions, noise, expected) < (4e-2 if kernel == "fp8" else 2e-2)
    assert counts == {"expert_loop": 1}
    done = {f"expert_loop_{name}_{form}": STEPS * module.sizes.expert.depth for name in PRODUCTS}
    assert expert.products_done() == done


@torch.no_grad()
def test_nan_in_a_value_of_the_prefix_gives_nan_in_e4m3() -> None:
    k = kit(10, "e4m3", 16, 77)
    k.cache[0][1][0, 0, 5, 3] = torch.nan
    assert k.expert.denoise(k.noise, k.expert.prepare(k.cache)).isnan().all()


@pytest.mark.parametrize(("tokens", "form"), [(10, 4), (50, 4), (50, 8), (10, "e4m3")])
@torch.no_grad()
def test_the_loop_ends_with_nan_in_the_noise(tokens: int, form: Form) -> None:
    k = kit(tokens, form, 16, 77)  # CTAs wait for values that are not NaNs of one kind
    k.noise[3] = torch.nan
    k.noise[4] = torch.inf
    assert k.expert.denoise(k.noise, k.expert.prepare(k.cache))[3:5].isnan().all()


@torch.no_grad()
def test_products_are_counted_where_they_are_computed() -> None:
    k = kit(10, 4, 16, 77)
    prefix = k.expert.prepare(k.cache)
    for steps in (3, 1):  # of a schedule of one step: the kernel counts what really runs
        given = {**k.expert.tensors, **prefix.tensors, "noise": k.noise}
        given["modulations"] = given["modulations"].repeat(3, 1, 1, 1)
        given["step_sizes"] = torch.full((steps,), 1 / steps, device="cuda")
        given["actions"] = torch.empty_like(k.noise)
        k.expert.loop.run(given, prefix.length, steps)
        assert set(k.expert.products_done().values()) == {steps}


@pytest.mark.parametrize(("tokens", "prefix"), [(10, 534), (50, 2222)])
@torch.no_grad()
def test_results_repeat_bit_for_bit_whatever_the_buffers_held(tokens: int, prefix: int) -> None:
    k = kit(tokens, 4, 16, prefix)
    prepared = k.expert.prepare(k.cache)
    results = []
    for _ in range(50):
        poison(k.expert)
        results.append(k.expert.denoise(k.noise, prepared))
    assert all(torch.equal(result, results[0]) for result in results)
    assert not results[0].isnan().any()


@torch.no_grad()
def test_fewer_clusters_give_the_same_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    k = kit(50, 4, 16, 77)
    expected = k.expert.denoise(k.noise, k.expert.prepare(k.cache))
    monkeypatch.setattr(nvrtc, "max_active_clusters", lambda ctas, threads: 14)
    expert = PersistentExpert(k.merged)
    assert expert.loop.constants.clusters == 14
    assert torch.equal(expert.denoise(k.noise, expert.prepare(k.cache)), expected)


@torch.no_grad()
def test_the_keys_of_two_pictures_and_a_long_prompt_fit_at_once() -> None:
    assert kit(50, 8, 16, 3).expert.loop.longest_at_once == 718


@torch.no_grad()
def test_each_step_has_its_own_size() -> None:
    k = kit(10, 4, 16, 77)
    prefix = k.expert.prepare(k.cache)

    def moved_by(*sizes: float) -> Tensor:
        given = {**k.expert.tensors, **prefix.tensors, "noise": k.noise}
        given["modulations"] = given["modulations"].repeat(len(sizes), 1, 1, 1)
        given["step_sizes"] = torch.tensor(sizes, device="cuda")
        given["actions"] = torch.empty_like(k.noise)
        k.expert.loop.run(given, prefix.length, len(sizes))
        return given["actions"] - k.noise

    first = moved_by(1.0)
    torch.testing.assert_close(moved_by(0.25), 0.25 * first)
    torch.testing.assert_close(moved_by(0.25, 0.0, 0.0), 0.25 * first)
    torch.testing.assert_close(moved_by(0.0, 0.25), 0.25 * first)


@torch.no_grad()
def test_merged_weights_stay_as_they_are() -> None:
    k = kit(1, 4, 16, 3)
    before = k.merged.modulations.clone()
    PersistentExpert(k.merged)
    assert torch.equal(k.merged.modulations, before)
