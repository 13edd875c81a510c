"""The action expert's weights for fused kernels: merged layers, projections and modulations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from duqsweep.checkpoint.io_spec import CAMERAS
from duqsweep.checkpoint.sizes import LLM, rows_a_pass
from duqsweep.errors import EvaluationError
from duqsweep.inference.weights import weights_of
from duqsweep.kernels.expert.limits import shape_reason
from duqsweep.kernels.expert.tiling import ExpertShape
from duqsweep.kernels.expert.weights import (
    LayerProjections,
    LayerWeights,
    merge_layer,
    merge_reason,
)
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.policy.gemma import ExpertLayer
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.schedule import step_sizes
from duqsweep.spec import UNIFORM, Schedule


@dataclass(frozen=True)
class MergedExpert:
    """The tensors that the fused kernels read."""

    shape: ExpertShape
    layers: list[LayerWeights]
    # Weight and bias of action_out_proj, then of action_in_proj.
    projections: tuple[Tensor, Tensor, Tensor, Tensor]
    modulations: Tensor  # (norms, steps, 3, width): factor, shift and gate
    longest_prefix: int  # the most prefix tokens that the policy can produce
    schedule: Schedule = UNIFORM

    @property
    def num_steps(self) -> int:
        """Number of Euler steps."""
        return self.modulations.shape[1]

    @property
    def step_sizes(self) -> tuple[float, ...]:
        """By how much time falls in each step."""
        return step_sizes(self.num_steps, self.schedule)


@dataclass(frozen=True)
class ExpertSource:
    """An expert to compile: backends inspect it, and the first that supports it builds from it."""

    module: Pi05
    num_steps: int
    schedule: Schedule = UNIFORM

    def merge_reason(self) -> str | None:
        """Why the expert cannot be merged for fused kernels; None: `merged` does it."""
        reason = shape_reason(self._sizes())
        if reason is not None:
            return reason
        for layer in self._layers():
            parts = _parts(layer)
            reason = (
                "a layer has settings that the kernels do not support"
                if parts is None
                else merge_reason(parts)
            )
            if reason is not None:
                return reason
        return None

    def has_integers(self) -> bool:
        """Whether any layer multiplies integers."""
        return any(part.is_integer for part in self._weights())

    def has_e4m3(self) -> bool:
        """Whether any layer multiplies numbers of e4m3."""
        return any(part.is_e4m3 for part in self._weights())

    @cached_property
    @torch.no_grad()
    def merged(self) -> MergedExpert:
        """The expert with merged layers; those of `module` are not changed.

        Raises:
            EvaluationError: There is a `merge_reason`.
        """
        reason = self.merge_reason()
        if reason is not None:
            raise EvaluationError(reason)
        module = self.module
        parts = [_parts(layer) for layer in self._layers()]
        out_proj, in_proj = module.action_out_proj, module.action_in_proj
        tensors = (out_proj.weight, out_proj.bias, in_proj.weight, in_proj.bias)
        projections = tuple(tensor.detach().to(module.dtype).contiguous() for tensor in tensors)
        pictures = min(module.sizes.cameras, len(CAMERAS))
        return MergedExpert(
            shape=ExpertShape(**self._sizes()),
            layers=[merge_layer(part) for part in parts if part is not None],
            projections=cast("tuple[Tensor, Tensor, Tensor, Tensor]", projections),
            modulations=module.modulations(self.num_steps, self.schedule).to(module.dtype),
            longest_prefix=rows_a_pass(module.sizes, pictures, module.sizes.prompt_tokens)[LLM],
            schedule=self.schedule,
        )

    def _weights(self) -> Iterator[ProjectionWeights]:
        parts = [weights_of(linear) for layer in self._layers() for linear in _linears(layer)]
        yield from (part for part in parts if part is not None)

    def _layers(self) -> Iterator[ExpertLayer]:
        yield from cast("list[ExpertLayer]", list(self.module.expert.layers))

    def _sizes(self) -> dict[str, int]:
        sizes = self.module.sizes.expert
        return {
            "tokens": self.module.sizes.horizon,
            "width": sizes.width,
            "hidden": sizes.mlp,
            "heads": sizes.heads,
            "kv_heads": sizes.kv_heads,
            "head_dim": sizes.head_dim,
            "action_dim": self.module.sizes.action_dim,
        }


def merge_expert(module: Pi05, num_steps: int, schedule: Schedule = UNIFORM) -> MergedExpert:
    """`ExpertSource.merged` of a policy."""
    return ExpertSource(module, num_steps, schedule).merged


def _linears(layer: ExpertLayer) -> list[nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
    return [*inputs, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def _parts(layer: ExpertLayer) -> LayerProjections | None:
    found = [weights_of(linear) for linear in _linears(layer)]
    weights: list[ProjectionWeights] = [part for part in found if part is not None]
    if len(weights) < len(found):
        return None
    q, k, v, o, gate, up, down = weights
    return LayerProjections((q, k, v), o, (gate, up), down)
