"""The action expert's weights for fused kernels: merged layers, projections, modulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from duqsweep.checkpoint.io_spec import CAMERAS
from duqsweep.checkpoint.sizes import LLM, rows_a_pass
from duqsweep.errors import EvaluationError
from duqsweep.kernels.expert_cuts import Shape
from duqsweep.kernels.expert_weights import LayerWeights, Weight, layer_weights
from duqsweep.policy.gemma import ExpertLayer
from duqsweep.policy.pi05 import Pi05, euler_times


@dataclass(frozen=True)
class MergedExpert:
    """What the fused kernels read."""

    shape: Shape
    layers: list[LayerWeights]
    projections: tuple[Tensor, Tensor, Tensor, Tensor]  # weight, bias: out of the stream, into it
    modulations: Tensor  # (norms, steps, 3, width): factor, shift, gate
    longest_prefix: int  # tokens that the policy may come with

    @property
    def num_steps(self) -> int:
        """Euler steps of the schedule."""
        return self.modulations.shape[1]


def plain_weight(linear: nn.Module) -> Weight:
    """The weight of a layer that is not quantized.

    Raises:
        EvaluationError: It is.
    """
    if not isinstance(linear, nn.Linear):
        raise EvaluationError(f"expected an unquantized linear layer, got {type(linear).__name__}")
    return linear.weight.detach()


@torch.no_grad()
def merge_expert(
    module: Pi05, num_steps: int, weight_of: Callable[[nn.Module], Weight] = plain_weight
) -> MergedExpert:
    """Merge the expert's weights; those of `module` stay as they are.

    Args:
        module: The policy.
        num_steps: Euler steps of the schedule.
        weight_of: A linear layer's weight, as the kernels read it.

    Raises:
        EvaluationError: There are no kernels for these sizes or weights.
    """
    sizes = module.sizes.expert
    shape = Shape(
        tokens=module.sizes.horizon,
        width=sizes.width,
        hidden=sizes.mlp,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        action_dim=module.sizes.action_dim,
    )
    layers = [
        layer_weights(
            [weight_of(layer.self_attn.get_submodule(f"{name}_proj")) for name in "qkv"],
            weight_of(layer.self_attn.o_proj),
            weight_of(layer.mlp.gate_proj),
            weight_of(layer.mlp.up_proj),
            weight_of(layer.mlp.down_proj),
        )
        for layer in cast("list[ExpertLayer]", list(module.expert.layers))
    ]
    leaving, entering = module.action_out_proj, module.action_in_proj
    tensors = (leaving.weight, leaving.bias, entering.weight, entering.bias)
    projections = tuple(tensor.detach().to(module.dtype).contiguous() for tensor in tensors)
    times = euler_times(num_steps).to(entering.weight.device)
    pictures = min(module.sizes.cameras, len(CAMERAS))
    return MergedExpert(
        shape=shape,
        layers=layers,
        projections=cast("tuple[Tensor, Tensor, Tensor, Tensor]", projections),
        modulations=module.modulation(times).to(module.dtype),
        longest_prefix=rows_a_pass(module.sizes, pictures, module.sizes.prompt_tokens)[LLM],
    )
