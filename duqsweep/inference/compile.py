"""Compiles a policy: a fast second policy; the eager one is not changed."""

from __future__ import annotations

import torch

from duqsweep.errors import EvaluationError
from duqsweep.inference.compiled_layer import CompiledLayer
from duqsweep.inference.compiled_policy import CompiledPolicy
from duqsweep.inference.cpp_expert import CppExpert, has_cpp_expert
from duqsweep.inference.cpp_layer import cpp_layer
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.policy.eager_call import EagerCall
from duqsweep.policy.frontend import Call
from duqsweep.policy.gemma import ExpertLayer
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.seams import EagerPolicy


def compile_policy(policy: EagerPolicy) -> CompiledPolicy:
    """A policy that computes the same actions, up to rounding; its first call compiles.

    On a GPU, layers with the same input are merged, layers that are not kernels are compiled, and
    the whole call is captured in CUDA graphs, see `graphed_call`. On a CPU, each layer becomes a
    call of C++ code, see `cpp_layer`, or is compiled by torch where that does not know it, see
    `CompiledLayer`: a second or more for each kind of layer, which later trials share.

    Args:
        policy: Eager, possibly quantized by `freeze`. Merged weights are new tensors: release the
            eager policy afterwards if its memory is needed.

    Raises:
        EvaluationError: Policies of this kind cannot be compiled.
    """
    if not isinstance(policy, Pi05Policy):
        raise EvaluationError(f"only a pi0.5 can be compiled, got a {type(policy).__name__}")
    on_gpu = policy.frontend.device.type == "cuda"
    call = _graphed(policy) if on_gpu else _compiled_layers(policy)
    return CompiledPolicy(policy.frontend, policy.num_steps, call)


def _compiled_layers(policy: Pi05Policy) -> Call:
    twin = policy.copy(policy.num_steps, policy.schedule, policy.reuse_images)
    assert isinstance(twin.call, EagerCall)
    layers = [*twin.module.layers()]
    if has_cpp_expert(twin.module):
        twin.call.velocity = CppExpert(twin.module)
        layers = [layer for layer in layers if not isinstance(layer, ExpertLayer)]
    for layer in layers:
        layer._compiled_call_impl = cpp_layer(layer) or CompiledLayer(layer)
    return twin.call


@torch.no_grad()
def _graphed(policy: Pi05Policy) -> Call:
    if policy.reuse_images:
        raise EvaluationError(
            "policy.reuse_images must be false where runtime.compile is true on a GPU: CUDA graphs "
            "always encode all images"
        )
    from duqsweep.inference.backends import build_expert  # these need Triton
    from duqsweep.inference.graphed_call import GraphedCall
    from duqsweep.inference.merged_expert import ExpertSource

    expert = build_expert(ExpertSource(policy.module, policy.num_steps, policy.schedule))
    return GraphedCall(FusedPrefix(policy.module), expert, policy.preprocessing.pixels)
