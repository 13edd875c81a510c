"""Compiled quantized policies against the same layers called one by one, and their launches."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, VisionSizes, linear_layers
from duqsweep.errors import EvaluationError
from duqsweep.inference.backends import build_expert
from duqsweep.inference.compiled_expert import CompiledExpert
from duqsweep.inference.merged_expert import ExpertSource
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.inference.triton_expert import TritonExpert
from duqsweep.kernels.launches import counted
from duqsweep.policy.pi05 import Pi05
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.spec import (
    LayerBits,
    LayerRule,
    PolicySpec,
    QuantSpec,
    RuntimeSpec,
    SuiteSpec,
    TrialSpec,
)
from duqsweep.worker.launch_check import check_launches, products_needed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 2
STACK = StackSizes(width=64, depth=2, mlp=128, heads=2, kv_heads=1, head_dim=32)
SIZES = PolicySizes(
    vision=VisionSizes(width=32, depth=1, mlp=64, heads=2, patch_px=8, image_px=16),
    llm=STACK,
    expert=STACK,
    horizon=3,
    action_dim=4,
    vocabulary=20,
    prompt_tokens=8,
    cameras=1,
)
LLM_AND_EXPERT = (LayerRule(r"(language_model|gemma_expert)\.", 4, 8),)
SUITE = SuiteSpec("recorded", 6, 2, 16, 10, 10, 0, 5)

FORMS = {
    "unquantized": QuantSpec(),
    "int8": QuantSpec(rules=(LayerRule(r"_proj$|fc[12]$", 8, 8),), kernel="int8"),
    "w4a8, with a wider layer": QuantSpec(
        rules=LLM_AND_EXPERT,
        layer_bits=(LayerBits("gemma_expert.model.layers.0", 8),),
        kernel="w4a8",
    ),
    "w4a8 in the MLPs of the expert": QuantSpec(
        rules=(LayerRule(r"gemma_expert.*mlp", 4, 8),), kernel="w4a8", block_size=32
    ),
    "fp8": QuantSpec(rules=(LayerRule(r"_proj$|fc[12]$", 8, 8),), kernel="fp8"),
    "fp8 in the MLPs, without a rotation": QuantSpec(
        rules=(LayerRule(r"mlp", 8, 8),), kernel="fp8", rotation="none", permutation="none"
    ),
    "fp8, not to be merged": QuantSpec(
        rules=(LayerRule(r"(q|up|down|out)_proj$", 8, 8),), kernel="fp8"
    ),
    "fake": QuantSpec(rules=LLM_AND_EXPERT),
    "fake in e4m3": QuantSpec(
        rules=(LayerRule(r"_proj$|fc[12]$", 8, 8),), number_format="e4m3", rotation="svd"
    ),
    "fake, not to be merged": QuantSpec(
        rules=(LayerRule(r"gemma_expert.*(q|up|down)_proj", 4, 8),), rotation="svd"
    ),
}


@pytest.fixture(scope="module")
def policy() -> Pi05:
    torch.manual_seed(0)
    module = Pi05(SIZES).to(DEVICE)
    with torch.no_grad():
        for value in module.parameters():
            value.normal_(std=0.2 if value.ndim == 1 else value[0].numel() ** -0.5)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    pixels = torch.rand(1, 3, 16, 16, device=DEVICE) * 2 - 1
    tokens = torch.randint(20, (3,), device=DEVICE)
    return pixels, tokens, torch.randn(3, 4, device=DEVICE)


def one_by_one(module: Pi05, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    pixels, tokens, noise = inputs
    cache = module.prefix(module.encode_images(pixels[None]), tokens[None])
    actions = noise[None]
    for modulation in module.modulations(STEPS).unbind(1):
        actions = actions - module.velocity(actions, cache, modulation[:, None]) / STEPS
    return actions[0]


def frozen(policy: Pi05, inputs: tuple[Tensor, Tensor, Tensor], quant: QuantSpec) -> Pi05:
    module = copy.deepcopy(policy)
    bits = select_layers(quant, linear_layers(SIZES))
    if bits:

        def run() -> None:
            one_by_one(policy, inputs)

        stats = calibrate(policy, bits, quant, run)
        freeze(module, bits, quant, stats, None, "random")
    return module


def spec_of(quant: QuantSpec) -> TrialSpec:
    return TrialSpec(PolicySpec("embedded", num_steps=STEPS), quant, RuntimeSpec(), SUITE)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_a_fused_form_gives_the_actions_of_its_layers_and_shows_its_kernels(
    form: str, policy: Pi05, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    quant = FORMS[form]
    module = frozen(policy, inputs, quant)
    expected = one_by_one(module, inputs)
    prefix, expert = FusedPrefix(module), build_expert(ExpertSource(module, STEPS))
    pixels, tokens, noise = inputs
    with counted() as launched:
        cache = prefix.encode_prefix(prefix.encode_images(pixels), tokens)
        actions = expert.denoise(noise, expert.prepare(cache))
    moved = float((actions - expected).norm() / (expected - noise).norm())
    assert moved < 2e-2
    check_launches(spec_of(quant), select_layers(quant, linear_layers(SIZES)), launched)


@torch.no_grad()
def test_layers_called_one_by_one_are_counted_too(
    policy: Pi05, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    quant = QuantSpec(rules=LLM_AND_EXPERT, kernel="int8")
    module = frozen(policy, inputs, quant)
    with counted() as launched:
        one_by_one(module, inputs)
    bits = select_layers(quant, linear_layers(SIZES))
    check_launches(spec_of(quant), bits, launched)
    assert sum(n for name, n in launched.items() if name.endswith("w8a8")) == 7 * 2 * (1 + STEPS)


def test_products_are_merged_and_the_last_language_layer_gives_keys_and_values_alone() -> None:
    bits = select_layers(FORMS["int8"], linear_layers(SIZES))
    expert, language, vision = 4 * 2 * STEPS, 4 + 1, 4
    assert products_needed(bits, STEPS) == expert + language + vision


@pytest.mark.parametrize(
    ("launched", "message"),
    [
        ({}, "0 integer products.*at least 21"),
        ({"expert_qkv_w8a8": 20}, "20 integer products"),
        ({"expert_qkv_w8a8": 21}, "no product of packed weights"),
    ],
)
def test_a_kernel_that_did_not_run_is_an_error(launched: dict[str, int], message: str) -> None:
    quant = QuantSpec(rules=LLM_AND_EXPERT, kernel="w4a8")
    bits = select_layers(quant, linear_layers(SIZES))
    with pytest.raises(EvaluationError, match=message):
        check_launches(spec_of(quant), bits, launched)
    check_launches(spec_of(quant), bits, {"expert_qkv_w4a8": 21})


@pytest.mark.parametrize(("horizon", "form"), [(16, TritonExpert), (17, CompiledExpert)])
def test_long_chunks_of_an_unquantized_expert_are_left_to_the_compiler(
    horizon: int, form: type
) -> None:
    module = Pi05(replace(SIZES, horizon=horizon)).to(DEVICE)
    assert type(build_expert(ExpertSource(module, num_steps=1))) is form
