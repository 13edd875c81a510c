"""Forms in plain torch: bf16 and fake W4A8, eager, compiled, merged, in one CUDA graph."""

from __future__ import annotations

from latency.bench import Bench
from latency.calls import (
    eager_policy,
    graphed,
    merged_expert,
    merged_policy,
    merged_prefix,
    prefix_parts,
    stepwise,
)
from latency.registry import Built, form
from latency.settings import EXPERT_W4A8, SEED_LOOP, SEED_REFERENCE


@form("expert_bf16_merged_graph")
def _(bench: Bench) -> Built:
    return graphed(bench, merged_expert(bench, bench.module))


@form("expert_w4a8_fake_graph", EXPERT_W4A8)
def _(bench: Bench) -> Built:
    return graphed(bench, merged_expert(bench, bench.frozen(EXPERT_W4A8)))


@form("policy_bf16_merged_graph")
def _(bench: Bench) -> Built:
    return graphed(bench, merged_policy(bench, bench.module))


@form("expert_loop", SEED_REFERENCE, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return stepwise(bench, bench.frozen(SEED_LOOP), compiled=False)


@form("prefix_bf16_merged_graph", first_horizon_only=True)
def _(bench: Bench) -> Built:
    prefix = merged_prefix(bench)
    images, prompt = bench.images[0], bench.prompt[0]
    return graphed(bench, Built(lambda: prefix(images, prompt)[-1][0], prefix_parts(prefix)))


@form("vision_bf16_merged_graph", first_horizon_only=True)
def _(bench: Bench) -> Built:
    prefix = merged_prefix(bench)
    weights = {"vision": prefix_parts(prefix)["vision"]}
    return graphed(bench, Built(lambda: prefix.encode_images(bench.images[0]), weights))


@form("policy_w4a8_fake_graph", EXPERT_W4A8, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return graphed(bench, merged_policy(bench, bench.frozen(EXPERT_W4A8)))


@form("expert_bf16_eager", first_horizon_only=True)
def _(bench: Bench) -> Built:
    return stepwise(bench, bench.module, compiled=False)


@form("expert_fake_eager", EXPERT_W4A8, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return stepwise(bench, bench.frozen(EXPERT_W4A8), compiled=False)


@form("policy_bf16_eager", first_horizon_only=True)
def _(bench: Bench) -> Built:
    return eager_policy(bench, bench.module)


@form("expert_bf16_graph", gpu_only=True, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return graphed(bench, stepwise(bench, bench.module, compiled=True))


@form("expert_fake_graph", EXPERT_W4A8, gpu_only=True, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return graphed(bench, stepwise(bench, bench.frozen(EXPERT_W4A8), compiled=True))


@form("expert_bf16_compile", first_horizon_only=True)
def _(bench: Bench) -> Built:
    return stepwise(bench, bench.module, compiled=True)


@form("expert_fake_compile", EXPERT_W4A8, first_horizon_only=True)
def _(bench: Bench) -> Built:
    return stepwise(bench, bench.frozen(EXPERT_W4A8), compiled=True)
