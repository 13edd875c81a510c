"""How the fused forms of a policy on a GPU make the products of its quantized layers.

Imported where a policy is compiled on a GPU: it needs Triton.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.inference.compiled_expert import CompiledExpert, PlainLinears
from duqsweep.inference.expert_products import MergedLinears
from duqsweep.inference.graphed_call import KEYS_ALIKE, Expert, Fuse, fuse_plain, plain_expert
from duqsweep.inference.integer_products import IntegerPrefixLinears
from duqsweep.inference.merged_expert import MergedExpert, merge_expert
from duqsweep.inference.persistent_expert import PersistentExpert
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.inference.triton_expert import TritonExpert
from duqsweep.inference.weights import expert_weight
from duqsweep.kernels.expert_loop import obstacle
from duqsweep.policy.gemma import normalise
from duqsweep.policy.pi05 import Pi05
from duqsweep.quant.kernels.integer import IntegerLinear
from duqsweep.spec import INTEGER_KERNELS, QuantSpec

log = logging.getLogger(__name__)


def fuse_for(quant: QuantSpec) -> Fuse:
    """What fuses a policy whose layers `freeze` replaced by these settings."""
    if not quant.rules:
        return fuse_plain
    return fuse_integer if quant.kernel in INTEGER_KERNELS else fuse_simulated


def fuse_integer(module: Pi05, num_steps: int) -> tuple[FusedPrefix, Expert]:
    """Products of integers, and unquantized layers beside them; `module` lets go of its codes."""
    prefix = FusedPrefix(module, IntegerPrefixLinears(release=True))
    expert = integer_expert(merge_expert(module, num_steps, expert_weight))
    for layer in module.expert.modules():
        if isinstance(layer, IntegerLinear):
            layer.release()
    return prefix, expert


def integer_expert(merged: MergedExpert) -> Expert:
    """All steps in one kernel where that can be; otherwise several kernels a layer."""
    dtype = merged.modulations.dtype
    against = obstacle(merged.shape, merged.layers, dtype, merged.longest_prefix)
    if against is None:
        return PersistentExpert(merged)
    log.info("several kernels a layer of the expert, because %s", against)
    return TritonExpert(merged)


def fuse_simulated(module: Pi05, num_steps: int) -> tuple[FusedPrefix, Expert]:
    """Kernels `fake` and `loop`; an expert without such layers is as in `fuse_plain`."""
    prefix = FusedPrefix(module, SimulatedPrefixLinears())
    layers = [m for name, m in module.expert.named_modules() if name.endswith("_proj")]
    if all(isinstance(layer, nn.Linear) for layer in layers):
        return prefix, plain_expert(module, num_steps)
    return prefix, CompiledExpert(module, num_steps, SimulatedLinears(), room=KEYS_ALIKE)


class SimulatedPrefixLinears(IntegerPrefixLinears):
    """Layers that are called one by one, and that torch.compile can look into."""

    traceable = True


class SimulatedLinears:
    """Merged where layers read their input alike; otherwise they are called one by one."""

    def entry(self, linears: Sequence[nn.Module]) -> nn.Module:
        """Adaptive norm and products."""
        if all(isinstance(linear, nn.Linear) for linear in linears):
            return PlainLinears().entry(linears)
        return _merged_or(lambda: MergedLinears().entry(linears), lambda: SeparateEntry(linears))

    def exit(self, linear: nn.Module) -> nn.Module:
        """Product of one layer."""
        return _merged_or(lambda: MergedLinears().exit(linear), lambda: linear)

    def gated_exit(self, linear: nn.Module) -> nn.Module:
        """Product of one layer behind GELU and gate."""
        plain = PlainLinears()
        return _merged_or(
            lambda: MergedLinears().gated_exit(linear), lambda: plain.gated_exit(linear)
        )


class SeparateEntry(nn.Module):
    """Gated residual and adaptive norm, then one product after the other."""

    def __init__(self, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(linears)

    def forward(
        self, x: Tensor, update: Tensor, gate: Tensor, factor: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `fused_expert.Entry`."""
        x = torch.addcmul(x, update, gate)
        rows = torch.addcmul(shift, normalise(x), factor).to(x.dtype)
        return x, torch.cat([linear(rows) for linear in self.linears], dim=-1)


def _merged_or(merge: Callable[[], nn.Module], other: Callable[[], nn.Module]) -> nn.Module:
    """The same numbers in both ways; not every setting can be merged."""
    try:
        return merge()
    except EvaluationError as error:
        log.debug("not merged: %s", error)
        return other()
