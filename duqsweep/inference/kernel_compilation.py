"""Compiles a policy's kernels for a GPU in several threads, without the policy.

Layers of a stack share their kernels. So this compiles those of the first and the last one, each
part of a layer in a thread, and what torch.compile makes in the thread that asks for it. Triton's
and NVIDIA's compilers work outside of Python most of the time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from duqsweep.checkpoint.sizes import EXPERT, LLM, VISION
from duqsweep.inference.compiled_expert import CompiledExpert
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.policy.frontend import CallInputs
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.quant.select import Bits

THREADS = 12  # more than there are parts


def bits_of_ends(module: Pi05, bits: Mapping[str, Bits]) -> dict[str, Bits]:
    """Those of the layers that `cut_to_ends` leaves."""
    kept = [f"{EXPERT}.layers.0."]
    kept += [f"{VISION}.encoder.layers.{i}." for i in _ends(_encoder(module).layers)]
    kept += [f"{LLM}.layers.{i}." for i in _ends(module.language_model.layers)]
    return {name: pair for name, pair in bits.items() if name.startswith(tuple(kept))}


def cut_to_ends(module: Pi05) -> None:
    """Leave only the first and the last layer of image encoder and language model.

    Copies of the expert's first layer, with the same tensors, take the place of the others: their
    number is in its kernel.
    """
    first, depth = module.expert.layers[0], len(module.expert.layers)
    tensors = {id(tensor): tensor for tensor in (*first.parameters(), *first.buffers())}
    module.expert.layers = nn.ModuleList(copy.deepcopy(first, dict(tensors)) for _ in range(depth))
    for owner in (_encoder(module), module.language_model):
        owner.layers = nn.ModuleList(owner.layers[i] for i in _ends(owner.layers))


@torch.no_grad()
def compile_kernels(
    policy: Pi05Policy, inputs: CallInputs, depth: int, meanwhile: Callable[[], object]
) -> None:
    """Compile all that a call of the policy needs.

    Args:
        policy: On a GPU, its module cut by `cut_to_ends`.
        inputs: Of a call.
        depth: Layers of the language model before it was cut.
        meanwhile: Called by this thread while the others compile.

    Raises:
        Exception: What a call would raise.
    """
    from duqsweep.inference.backends import build_expert  # these need Triton
    from duqsweep.inference.merged_expert import ExpertSource

    device, sizes = policy.frontend.device, policy.module.sizes
    pictures = torch.from_numpy(np.stack(inputs.pictures)).to(device)
    tokens = torch.from_numpy(inputs.prompt()).to(device)
    noise = torch.from_numpy(inputs.noise).to(device)
    prefix = FusedPrefix(policy.module)
    prefix.compile(any_length=True)
    source = ExpertSource(policy.module, policy.num_steps, policy.schedule)
    dark = prefix.embed_tokens.weight.new_zeros(
        len(pictures) * sizes.vision.tokens, sizes.llm.width
    )
    keys = dark.new_zeros(1, sizes.llm.kv_heads, len(dark) + len(tokens), sizes.llm.head_dim)

    def expert_part() -> None:
        expert = build_expert(source)
        if not isinstance(expert, CompiledExpert):
            expert.denoise(noise, expert.prepare(((keys, keys),) * depth))

    with ThreadPoolExecutor(THREADS) as threads:
        parts = [expert_part, *prefix.parts(len(pictures), len(tokens))]
        begun = [threads.submit(_in_thread, part, device) for part in parts]
        meanwhile()
        _, traced_llm = prefix.traceable
        if traced_llm:
            prefix.encode_prefix(dark, tokens)
        for part in begun:
            part.result()
    # What no part had.
    prefix.encode_prefix(prefix.encode_images(policy.preprocessing.pixels(pictures)), tokens)


@torch.no_grad()
def _in_thread(part: Callable[[], object], device: torch.device) -> None:
    """Run a part; a new thread has the GPU for calls of the driver once it has launched there."""
    torch.zeros(1, device=device)
    part()


def _ends(layers: nn.ModuleList) -> list[int]:
    return sorted({0, len(layers) - 1})


def _encoder(module: Pi05) -> Any:
    return cast(Any, module).paligemma_with_expert.paligemma.model.vision_tower.vision_model.encoder
