"""Builds calls from modules: eager, merged, compiled, or captured in one CUDA graph."""

from __future__ import annotations

import torch

from duqsweep.inference.compiled_expert import CompiledExpert
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.policy.pi05 import Pi05
from latency.bench import Bench
from latency.registry import Built


def graphed(bench: Bench, built: Built) -> Built:
    """The call captured in one CUDA graph; on a CPU, the call itself."""
    if bench.device != "cuda":
        return built
    bench.sync()  # weights and inputs were made on another stream
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            built.call()
    bench.sync()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = built.call()
    kept = (graph, built.call)  # with all tensors that the graph reads

    def replay() -> torch.Tensor:
        kept[0].replay()
        return result

    return Built(replay, built.weights)


def stepwise(bench: Bench, module: Pi05, compiled: bool) -> Built:
    """The expert, one velocity after the other; compiled layer by layer."""
    if compiled:
        module = bench.copy_of(module)
        for layer in module.expert.layers:
            layer.compile(fullgraph=True, dynamic=False)
    return Built(lambda: bench.follow(module, bench.cache), {"dit": module.expert})


def eager_policy(bench: Bench, module: Pi05) -> Built:
    """The eager policy."""
    return Built(lambda: bench.follow(module, bench.prefix(module)), parts_of(module))


def merged_expert(bench: Bench, module: Pi05) -> Built:
    """The merged expert, compiled."""
    expert = CompiledExpert(module, bench.num_steps)
    expert.compile()
    prepared = expert.prepare(bench.cache)
    return Built(lambda: expert.denoise(bench.noise, prepared), {"dit": expert})


def merged_prefix(bench: Bench) -> FusedPrefix:
    """The merged image encoder and language model, compiled."""
    prefix = FusedPrefix(bench.module)
    prefix.compile(bench.any_length)
    return prefix


def merged_policy(bench: Bench, module: Pi05) -> Built:
    """Merged image encoder, prefix and expert, compiled."""
    prefix, expert = merged_prefix(bench), CompiledExpert(module, bench.num_steps)
    expert.compile()
    images, prompt = bench.images[0], bench.prompt[0]

    def call() -> torch.Tensor:
        return expert.denoise(bench.noise, expert.prepare(prefix(images, prompt)))

    return Built(call, {**prefix_parts(prefix), "dit": expert})


def parts_of(module: Pi05) -> dict[str, object]:
    """The weights of the eager policy, part by part."""
    paligemma = module.paligemma_with_expert.paligemma.model
    return {
        "vision": [paligemma.vision_tower, paligemma.multi_modal_projector],
        "embeddings": module.language_model.embed_tokens,
        "llm": module.language_model.layers,
        "dit": module.expert,
    }


def prefix_parts(prefix: FusedPrefix) -> dict[str, object]:
    """The weights of the merged prefix, part by part."""
    vision = [prefix.embeddings, prefix.vision_layers, prefix.post_layernorm, prefix.project]
    llm = [prefix.layers, prefix.last]
    return {"vision": vision, "embeddings": prefix.embed_tokens, "llm": llm}
