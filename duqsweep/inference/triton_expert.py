"""The action expert's denoising loop on fused Triton kernels, several per layer.

Computes the same as Euler steps along `Pi05.velocity`, for unquantized, int8 and int4 weights. It
needs a GPU or Triton's interpreter. Every call launches the same kernels, so a CUDA graph can
capture the loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.inference.merged_expert import MergedExpert
from duqsweep.kernels.expert.buffers import allocate_buffers
from duqsweep.kernels.expert.launch import ExpertKernels
from duqsweep.kernels.expert.tiling import TILE_CONFIGS, LayerTileConfigs
from duqsweep.kernels.machine import interpreted
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.policy.gemma import KeysValues, rotary_table
from duqsweep.policy.pi05 import PrefixCache

LONGEST_PREFIX = 2048 - 64  # tokens; together with up to 64 action tokens, 32 chunks of 64 keys


@dataclass(frozen=True)
class TritonPrefix:
    """A prefix prepared for the loop."""

    caches: tuple[KeysValues, ...]  # keys and values per layer, each (kv_heads, prefix, head_dim)
    table: KeysValues  # rotary table of the action tokens, padded to the buffers' rows


class TritonExpert:
    """Runs all denoising steps of one observation; an `Expert` of `backends`."""

    def __init__(
        self, merged: MergedExpert, configs: dict[int, LayerTileConfigs] | None = None
    ) -> None:
        """Allocate the buffers.

        Args:
            merged: The expert, on a GPU.
            configs: How the kernels are divided, by bits of the weights; None: `TILE_CONFIGS`.

        Raises:
            EvaluationError: There is no GPU.
        """
        modulations = merged.modulations
        if not modulations.is_cuda and not interpreted():
            raise EvaluationError(
                f"the expert's kernels run on a CUDA GPU, got {modulations.device}"
            )
        self.shape, self.step_sizes = merged.shape, merged.step_sizes
        self.num_steps = merged.num_steps
        self.layers, self.projections = merged.layers, merged.projections
        self.configs = configs or TILE_CONFIGS
        self.chunks = triton.next_power_of_2(
            triton.cdiv(LONGEST_PREFIX + self.shape.tokens, self.configs[16].attention.keys)
        )
        self.buffers = allocate_buffers(self.shape, self.chunks, modulations)
        self.kernels = ExpertKernels(self.shape, self.buffers, self.chunks, interpreted())
        self.modulations = [list(norm.unbind()) for norm in modulations]

    def compile(self) -> None:
        """Nothing to compile: the whole loop is kernels."""

    def prepare(self, cache: PrefixCache) -> TritonPrefix:
        """Prepare a prefix of batch 1."""
        start = cache[0][0].shape[2]
        positions = torch.arange(start, start + self.shape.padded, device=cache[0][0].device)
        caches = tuple((keys[0], values[0]) for keys, values in cache)
        return TritonPrefix(caches, rotary_table(positions, self.shape.head_dim))

    def denoise(self, noise: Tensor, prefix: TritonPrefix) -> Tensor:
        """Integrate the flow from noise to actions, both (horizon, action_dim) in float32."""
        actions = noise
        for step in range(self.num_steps):
            actions = self._euler_step(actions, step)
            stream = self.buffers.streams[step % 2]
            for i in range(len(self.layers)):
                self._layer(i, step, stream, prefix)
        return self._euler_step(actions, self.num_steps)

    def products_done(self) -> dict[str, int]:
        """Nothing: each product is a launch of its own, counted as such."""
        return {}

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers."""
        found = [*self.projections, *(step for norm in self.modulations for step in norm)]
        for layer in self.layers:
            for weight in layer.products():
                found += weight.tensors()
        return found

    def _euler_step(self, actions: Tensor, step: int) -> Tensor:
        new_actions = torch.empty_like(actions) if step else actions
        mod = self.modulations[-1][max(step - 1, 0)]
        size = self.step_sizes[step - 1] if step else 0.0
        last = step == self.num_steps
        self.kernels.euler_step(actions, mod, self.projections, new_actions, step, last, size)
        return new_actions

    def _layer(self, i: int, step: int, stream: Tensor, prefix: TritonPrefix) -> None:
        kernels, layer = self.kernels, self.layers[i]
        mod = self.modulations[2 * i][step]
        kernels.qkv(stream, mod, layer.qkv, prefix.table, self._config(layer.qkv).qkv)
        chunks = kernels.attention(prefix.caches[i], self.configs[16].attention)
        kernels.combine_partials(chunks, layer.o)
        kernels.o(layer.o, mod[2], stream, self._config(layer.o).o)
        mod = self.modulations[2 * i + 1][step]
        kernels.gate_up(stream, mod, layer.gate_up, self._config(layer.gate_up).gate_up)
        kernels.down(layer.down, mod[2], stream, self._config(layer.down).down)

    def _config(self, weight: ProjectionWeights) -> LayerTileConfigs:
        return self.configs[weight.stored_bits]
