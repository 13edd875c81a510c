"""Forms that use the fused kernels in one CUDA graph, as an evaluated policy does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from duqsweep.spec import Kernel, QuantSpec
from latency.bench import Bench
from latency.calls import graphed, prefix_parts
from latency.registry import Built, form
from latency.settings import (
    EXPERT_W4A8,
    EXPERT_W8A8,
    LLM_DIT_W4A8,
    LLM_DIT_W8A8,
    LLM_W8A8_DIT_W4A8,
    POLICY_FP8,
    POLICY_FP8_PLAIN,
    POLICY_W4A8,
    POLICY_W8A8,
    W8A8_DIT_W4A8,
)

if TYPE_CHECKING:
    from duqsweep.inference.backends import Expert
    from duqsweep.inference.prefix import FusedPrefix

PLAIN = QuantSpec()


@form("expert_w4a8_fused_graph", EXPERT_W4A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return expert(bench, EXPERT_W4A8, "w4a8")


@form("expert_bf16_fused_graph", gpu_only=True)
def _(bench: Bench) -> Built:
    return expert(bench, PLAIN, "fake")


@form("expert_w8a8_fused_graph", EXPERT_W8A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return expert(bench, EXPERT_W8A8, "int8")


@form("expert_w4a8_layered_graph", EXPERT_W4A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return layered(bench, EXPERT_W4A8, "w4a8")


@form("expert_w8a8_layered_graph", EXPERT_W8A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return layered(bench, EXPERT_W8A8, "int8")


@form("policy_bf16_fused_graph", gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, PLAIN, "fake")


@form("policy_w4a8_fused_graph", POLICY_W4A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, POLICY_W4A8, "w4a8")


@form("policy_w8a8_fused_graph", POLICY_W8A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, POLICY_W8A8, "int8")


@form("policy_w8a8_llm_dit_fused_graph", LLM_DIT_W8A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, LLM_DIT_W8A8, "int8")


@form("policy_w8a8_llm_w4a8_dit_fused_graph", LLM_W8A8_DIT_W4A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, LLM_W8A8_DIT_W4A8, "w4a8")


@form("policy_w8a8_w4a8_dit_fused_graph", W8A8_DIT_W4A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, W8A8_DIT_W4A8, "w4a8")


@form("policy_w4a8_llm_dit_fused_graph", LLM_DIT_W4A8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, LLM_DIT_W4A8, "w4a8")


@form("prefix_w8a8_fused_graph", POLICY_W8A8, integer=True, gpu_only=True, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return prefix(bench, POLICY_W8A8, "int8")


@form("prefix_w4a8_fused_graph", POLICY_W4A8, integer=True, gpu_only=True, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return prefix(bench, POLICY_W4A8, "w4a8")


@form("vision_w8a8_fused_graph", POLICY_W8A8, integer=True, gpu_only=True, first_horizon_only=True)
def _(bench: Bench) -> Built:
    merged, _ = fused(bench, POLICY_W8A8, "int8")
    weights = {"vision": prefix_parts(merged)["vision"]}
    return graphed(bench, Built(lambda: merged.encode_images(bench.images[0]), weights))


@form("expert_fp8_fused_graph", POLICY_FP8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return expert(bench, POLICY_FP8, "fp8")


@form("policy_fp8_fused_graph", POLICY_FP8, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, POLICY_FP8, "fp8")


@form("policy_fp8_plain_fused_graph", POLICY_FP8_PLAIN, integer=True, gpu_only=True)
def _(bench: Bench) -> Built:
    return policy(bench, POLICY_FP8_PLAIN, "fp8")


@form("prefix_fp8_compiled_graph", POLICY_FP8, integer=True, gpu_only=True, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return prefix(bench, POLICY_FP8, "fp8")


@form(
    "prefix_fp8_plain_compiled_graph",
    POLICY_FP8_PLAIN,
    integer=True,
    gpu_only=True,
    first_horizon_only=True,
)
def _(bench: Bench) -> Built:
    return prefix(bench, POLICY_FP8_PLAIN, "fp8")


def expert(bench: Bench, quant: QuantSpec, kernel: Kernel) -> Built:
    """The denoising loop alone."""
    return loop_alone(bench, fused(bench, quant, kernel)[1])


def layered(bench: Bench, quant: QuantSpec, kernel: Kernel) -> Built:
    """The denoising loop with several kernels per layer, even where the persistent one can run."""
    from duqsweep.inference.merged_expert import merge_expert  # these need Triton
    from duqsweep.inference.triton_expert import TritonExpert

    module = bench.frozen(replace(quant, kernel=kernel))
    merged = merge_expert(module, bench.num_steps)
    return loop_alone(bench, TritonExpert(merged))


def loop_alone(bench: Bench, loop: Expert) -> Built:
    """An expert with a precomputed prefix."""
    prepared = loop.prepare(bench.cache)
    call = Built(lambda: loop.denoise(bench.noise, prepared), {"dit": loop.weights()})
    return graphed(bench, call)


def prefix(bench: Bench, quant: QuantSpec, kernel: Kernel) -> Built:
    """Image encoder and language model."""
    merged, _ = fused(bench, quant, kernel)
    images, prompt = bench.images[0], bench.prompt[0]
    return graphed(bench, Built(lambda: merged(images, prompt)[-1][0], prefix_parts(merged)))


def policy(bench: Bench, quant: QuantSpec, kernel: Kernel) -> Built:
    """A whole call."""
    merged, loop = fused(bench, quant, kernel)
    images, prompt, noise = bench.images[0], bench.prompt[0], bench.noise
    weights = {**prefix_parts(merged), "dit": loop.weights()}
    call = Built(lambda: loop.denoise(noise, loop.prepare(merged(images, prompt))), weights)
    return graphed(bench, call)


def fused(bench: Bench, quant: QuantSpec, kernel: Kernel) -> tuple[FusedPrefix, Expert]:
    """The merged prefix, compiled where it is plain torch, and the expert's denoising loop."""
    from duqsweep.inference.backends import build_expert  # these need Triton
    from duqsweep.inference.compiled_expert import CompiledExpert
    from duqsweep.inference.merged_expert import ExpertSource
    from duqsweep.inference.prefix import FusedPrefix
    from duqsweep.inference.triton_expert import TritonExpert

    quant = replace(quant, kernel=kernel)
    module = bench.frozen(quant) if quant.rules else bench.module
    source = ExpertSource(module, bench.num_steps)
    loop = build_expert(source)
    if source.has_e4m3():
        loop.compile()
    elif isinstance(loop, CompiledExpert):  # long chunks run compiled; they are timed here, too
        loop = TritonExpert(source.merged)
    merged = FusedPrefix(module)
    merged.compile(bench.any_length)
    return merged, loop
