"""The action expert's denoising loop as one persistent GPU kernel, for one observation at a time.

Computes the same as Euler steps along `Pi05.velocity`, for pi0.5's sizes and integer weights with
the same format in all layers, on Hopper and later GPUs; see `persistent.unsupported_reason`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duqsweep.inference.merged_expert import MergedExpert
from duqsweep.kernels.expert.pack import RANKS, pack
from duqsweep.kernels.expert.persistent import PersistentLoop, constants_of
from duqsweep.policy.gemma import rotary_table
from duqsweep.policy.pi05 import PrefixCache


@dataclass(frozen=True)
class PersistentPrefix:
    """A prefix prepared for the kernel."""

    length: int  # tokens
    tensors: dict[str, Tensor]  # the kernel's arguments by name


class PersistentExpert:
    """Runs all denoising steps of one observation; an `Expert` of `backends`."""

    def __init__(self, merged: MergedExpert) -> None:
        """Repack the weights; compile the kernel, unless the process has it for these settings.

        Args:
            merged: The expert, on a GPU; it must have no `persistent.unsupported_reason`.
        """
        self.shape, self.num_steps = merged.shape, merged.num_steps
        constants = constants_of(merged.shape, merged.layers)
        packed = pack(merged.shape, merged.layers, RANKS * constants.clusters, constants.parts)
        table = merged.modulations.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        for i, permutation in enumerate(packed.permutations[:, :2].flatten(0, 1).long()):
            table[:, i, :2] = table[:, i, :2].index_select(-1, permutation)
        names = ("out_weight", "out_bias", "in_weight", "in_bias")
        projections = dict(zip(names, merged.projections, strict=True))
        sizes = torch.tensor(merged.step_sizes, device=table.device)
        schedule = {"modulations": table, "step_sizes": sizes}
        self.tensors = {**vars(packed), **projections, **schedule}
        name = merged.layers[0].qkv.format
        self.loop = PersistentLoop(constants, name, table.device, merged.longest_prefix)

    def compile(self) -> None:
        """Nothing to compile: the whole loop is one kernel."""

    def prepare(self, cache: PrefixCache) -> PersistentPrefix:
        """Prepare a prefix of batch 1."""
        start = cache[0][0].shape[2]
        positions = torch.arange(start, start + self.shape.padded, device=cache[0][0].device)
        cosines, sines = rotary_table(positions, self.shape.head_dim)
        keys_values = self.loop.divide_among_ranks([(keys[0], values[0]) for keys, values in cache])
        tensors = {"keys_values": keys_values, "cosines": cosines, "sines": sines}
        return PersistentPrefix(start, tensors)

    def denoise(self, noise: Tensor, prefix: PersistentPrefix) -> Tensor:
        """Integrate the flow from noise to actions, both (horizon, action_dim) in float32."""
        noise, actions = noise.contiguous(), torch.empty_like(noise)
        given = {**self.tensors, **prefix.tensors, "noise": noise, "actions": actions}
        self.loop.run(given, prefix.length, self.num_steps)
        return actions

    def products_done(self) -> dict[str, int]:
        """See `PersistentLoop.products_done`."""
        return self.loop.products_done()

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers."""
        return list(self.tensors.values())
