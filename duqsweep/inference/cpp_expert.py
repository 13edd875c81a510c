"""The action expert in float32: a step of its flow is one call of `kernels/cpp/layers.cpp`."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from duqsweep.inference.cpp_layer import Parts, gemma_layer, is_known
from duqsweep.kernels import cpp_layers
from duqsweep.policy.gemma import ExpertLayer, KeysValues, rotary_table
from duqsweep.policy.pi05 import Pi05, PrefixCache


class CppExpert:
    """Called in place of `Pi05.velocity`; computes the same, up to rounding."""

    def __init__(self, module: Pi05) -> None:
        """Take the weights.

        Args:
            module: One that `has_cpp_expert`; its parameters must not be changed afterwards.

        Raises:
            EvaluationError: There is no C++ compiler.
        """
        self._parts = Parts()
        none = cpp_layers.Norm(), cpp_layers.Norm()
        found = [layer for layer in module.expert.layers if isinstance(layer, ExpertLayer)]
        layers = [gemma_layer(self._parts, layer, none) for layer in found]
        self._layers = (cpp_layers.Layer * len(layers))(*layers)
        ends = (module.action_in_proj, module.action_out_proj)
        first, last = (self._parts.products((end,))[0] for end in ends)
        self._expert = cpp_layers.Expert(self._layers, first, last, len(layers))
        self._run = cpp_layers.library().expert_velocity
        self._head_dim = module.sizes.expert.head_dim
        self._tables: dict[tuple[int, int], KeysValues] = {}  # by first position and their number

    def __call__(self, actions: Tensor, cache: PrefixCache, modulation: Tensor) -> Tensor:
        """See `Pi05.velocity`."""
        actions, modulation = actions.contiguous(), modulation.contiguous()
        kept = [(keys.contiguous(), values.contiguous()) for keys, values in cache]
        batch, tokens, _ = actions.shape
        earlier = kept[0][0].shape[2]
        cosines, sines = self._table(earlier, tokens)
        velocity = torch.empty_like(actions)
        pointers = ctypes.c_void_p * len(kept)
        self._run(
            self._expert,
            actions.data_ptr(),
            batch,
            tokens,
            cosines.data_ptr(),
            sines.data_ptr(),
            pointers(*(keys.data_ptr() for keys, _ in kept)),
            pointers(*(values.data_ptr() for _, values in kept)),
            earlier,
            modulation.data_ptr(),
            modulation.shape[1],
            velocity.data_ptr(),
        )
        return velocity

    def _table(self, first: int, count: int) -> KeysValues:
        if (first, count) not in self._tables:
            positions = torch.arange(first, first + count)
            self._tables[first, count] = rotary_table(positions, self._head_dim)
        return self._tables[first, count]


def has_cpp_expert(module: Pi05) -> bool:
    """Whether `CppExpert` computes what the module's expert does."""
    parts = (module.expert, module.action_in_proj, module.action_out_proj)
    return all(map(is_known, parts))
