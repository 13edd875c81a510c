"""The action expert's denoising loop on fused GPU kernels, several per layer.

Equal to `Pi05.velocity` followed step by step, for unquantized, int8 and int4 weights alike. Needs
a GPU (or Triton's interpreter); every call launches the same kernels, so that a CUDA graph can hold
the loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.inference.merged_expert import MergedExpert
from duqsweep.kernels.expert.buffers import buffers
from duqsweep.kernels.expert.launch import Launcher
from duqsweep.kernels.expert.tiling import CUTS, Cuts
from duqsweep.kernels.machine import interpreted
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.policy.gemma import KeysValues, rotary_table
from duqsweep.policy.pi05 import PrefixCache

LONGEST_PREFIX = 1024 - 64  # tokens; with the action tokens behind it, 16 chunks of 64 keys


@dataclass(frozen=True)
class TritonPrefix:
    """A prefix made ready for the loop."""

    caches: tuple[KeysValues, ...]  # of each layer, each (kv_heads, prefix, head_dim)
    table: KeysValues  # rotary, of the action tokens, padded to the buffers' rows


class TritonExpert:
    """All denoising steps of one observation."""

    def __init__(self, merged: MergedExpert, cuts: dict[int, Cuts] | None = None) -> None:
        """Make room.

        Args:
            merged: The expert, on a GPU.
            cuts: How the kernels are cut, by bits of the weights; None: as was fastest.

        Raises:
            EvaluationError: There is no GPU.
        """
        entry = merged.modulations
        if not entry.is_cuda and not interpreted():
            raise EvaluationError(f"the expert's kernels run on a CUDA GPU, got {entry.device}")
        self.shape, self.num_steps = merged.shape, merged.num_steps
        self.layers, self.projections = merged.layers, merged.projections
        self.cuts = cuts or CUTS
        self.chunks = triton.next_power_of_2(
            triton.cdiv(LONGEST_PREFIX + self.shape.tokens, self.cuts[16].attention.keys)
        )
        self.buffers = buffers(self.shape, self.chunks, entry)
        self.launch = Launcher(self.shape, self.buffers, self.chunks, interpreted())
        self.modulations = [list(norm.unbind()) for norm in merged.modulations]

    def compile(self) -> None:
        """Nothing: all of it is kernels."""

    def prepare(self, cache: PrefixCache) -> TritonPrefix:
        """Take a prefix of batch 1."""
        start = cache[0][0].shape[2]
        positions = torch.arange(start, start + self.shape.padded, device=cache[0][0].device)
        caches = tuple((keys[0], values[0]) for keys, values in cache)
        return TritonPrefix(caches, rotary_table(positions, self.shape.head_dim))

    def denoise(self, noise: Tensor, prefix: TritonPrefix) -> Tensor:
        """Follow the flow from noise to actions, both (horizon, action_dim) in float32."""
        actions = noise
        for step in range(self.num_steps):
            actions = self._between(actions, step)
            stream = self.buffers.streams[step % 2]
            for i in range(len(self.layers)):
                self._layer(i, step, stream, prefix)
        return self._between(actions, self.num_steps)

    def products_done(self) -> dict[str, int]:
        """None: each product is a launch."""
        return {}

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, scratch space apart."""
        found = [*self.projections, *(step for norm in self.modulations for step in norm)]
        for layer in self.layers:
            for weight in layer.products():
                found += weight.tensors()
        return found

    def _between(self, actions: Tensor, step: int) -> Tensor:
        following = torch.empty_like(actions) if step else actions
        mod = self.modulations[-1][max(step - 1, 0)]
        self.launch.step(actions, mod, self.projections, following, step, self.num_steps)
        return following

    def _layer(self, i: int, step: int, stream: Tensor, prefix: TritonPrefix) -> None:
        launch, layer = self.launch, self.layers[i]
        mod = self.modulations[2 * i][step]
        launch.qkv(stream, mod, layer.qkv, prefix.table, self._cut(layer.qkv).qkv)
        chunks = launch.attention(prefix.caches[i], self.cuts[16].attention)
        launch.mix(chunks, layer.o)
        launch.o(layer.o, mod[2], stream, self._cut(layer.o).o)
        mod = self.modulations[2 * i + 1][step]
        launch.gate_up(stream, mod, layer.gate_up, self._cut(layer.gate_up).gate_up)
        launch.down(layer.down, mod[2], stream, self._cut(layer.down).down)

    def _cut(self, weight: ProjectionWeights) -> Cuts:
        return self.cuts[weight.stored_bits]
