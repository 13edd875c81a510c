"""Makes a fast policy from an eager one, which it does not change."""

from __future__ import annotations

import torch

from duqsweep.errors import EvaluationError
from duqsweep.inference.compiled_policy import CompiledPolicy
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.policy.frontend import Call
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.seams import EagerPolicy


def compile_policy(policy: EagerPolicy) -> CompiledPolicy:
    """A policy with the same actions within rounding; its first call compiles.

    On a GPU, layers that read the same input are merged, compiled where they are not written as
    kernels, and captured in one CUDA graph per length of the prompt. On a CPU the layers of all
    three stacks are compiled; those of a stack share one compiled form, so this takes as long as a
    layer and not as a network: on two CPU cores 20 s where the whole denoising step took 40, for a
    call as fast.

    Args:
        policy: Eager; `freeze` may have quantized its layers. Merged weights are new tensors, so
            drop the policy afterwards if its memory is needed.

    Raises:
        EvaluationError: This policy cannot be compiled.
    """
    if not isinstance(policy, Pi05Policy):
        raise EvaluationError(f"only a pi0.5 can be compiled, got a {type(policy).__name__}")
    on_gpu = policy.frontend.device.type == "cuda"
    call = _graphed(policy) if on_gpu else _compiled_layers(policy)
    return CompiledPolicy(policy.frontend, policy.num_steps, call)


def _compiled_layers(policy: Pi05Policy) -> Call:
    # Dynamo allows each function a few compiled forms; every trial would add one.
    torch.compiler.reset()
    twin = policy.copy(policy.num_steps)
    for layer in twin.module.layers():
        layer.compile(fullgraph=True)
    return twin.call


@torch.no_grad()
def _graphed(policy: Pi05Policy) -> Call:
    from duqsweep.inference.backends import build_expert  # these need Triton
    from duqsweep.inference.graphed_call import GraphedCall
    from duqsweep.inference.merged_expert import ExpertSource

    expert = build_expert(ExpertSource(policy.module, policy.num_steps))
    return GraphedCall(FusedPrefix(policy.module), expert)
