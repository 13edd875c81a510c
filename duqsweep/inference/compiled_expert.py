"""The action expert's denoising loop in few kernels, for one observation at a time.

Equal to `Pi05.velocity` followed step by step. What is merged: the products of q, k and v, and of
gate and up; the gated residual with the norm behind it. What is precomputed: the modulation by the
flow's time, for a fixed schedule. Attention is two products over the query heads that share a key
head, folded into the token axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import StackSizes
from duqsweep.inference.expert_products import gated_linear, norm_linear, plain_linear
from duqsweep.policy.gemma import ExpertLayer, KeysValues, normalise, rotary_table, rotate
from duqsweep.policy.pi05 import Pi05, PrefixCache, euler_times

Result = TypeVar("Result")

# What stands between the products of a layer shall be one kernel each, even where a value is then
# computed more than once: a kernel on ten tokens takes as long as its launch.
FUSION = {
    "combo_kernels": True,
    "split_reductions": False,
    "assert_indirect_indexing": False,  # an assertion a channel makes loads wait for each other
    "realize_reads_threshold": 100,
    "realize_acc_reads_threshold": 1000,
    "realize_opcount_threshold": 1000,
}


class FusedLayer(nn.Module):
    """One expert layer; its keys and values hold the prefix's, then room for the tokens' own."""

    def __init__(self, layer: ExpertLayer, sizes: StackSizes) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = sizes.heads, sizes.kv_heads, sizes.head_dim
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = norm_linear([attention.q_proj, attention.k_proj, attention.v_proj])
        self.o = plain_linear(attention.o_proj)
        self.gate_up = norm_linear([mlp.gate_proj, mlp.up_proj])
        self.down = gated_linear(mlp.down_proj)

    def forward(
        self,
        residual: tuple[Tensor, Tensor, Tensor],
        modulation: tuple[Tensor, Tensor],
        cache: KeysValues,
        table: KeysValues,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer.

        Args:
            residual: x, update and gate: the stream is x + update * gate.
            modulation: Of the first and of the second norm, each (3, width).
            cache: Keys and values, each (kv_heads, prefix + tokens, head_dim); the last `tokens`
                of each are overwritten.
            table: Rotary table of the tokens' positions.
            bias: (prefix + tokens,) minus infinity at what is no key; None: all are.

        Returns:
            The residual after the layer.
        """
        before_attention, before_mlp = modulation
        x, qkv = self.qkv(*residual, before_attention[0], before_attention[1])
        update = self.o(self._attend(qkv, cache, table, bias))
        x, gate_up = self.gate_up(x, update, before_attention[2], before_mlp[0], before_mlp[1])
        return x, self.down(gate_up), before_mlp[2]

    def _attend(
        self, qkv: Tensor, cache: KeysValues, table: KeysValues, bias: Tensor | None
    ) -> Tensor:
        tokens = qkv.shape[0]
        keys, values = cache
        split = qkv.view(tokens, -1, self.head_dim).transpose(0, 1)
        q, k, v = torch.split(split, [self.heads, self.kv_heads, self.kv_heads])
        keys[:, -tokens:] = rotate(k, table)
        values[:, -tokens:] = v
        # As rows (token, head): the product's output is then (tokens, heads * head_dim) as it lies.
        q = rotate(q, table) * self.head_dim**-0.5
        q = q.view(self.kv_heads, -1, tokens, self.head_dim).transpose(1, 2)
        q = q.reshape(self.kv_heads, -1, self.head_dim)
        scores = torch.bmm(q, keys.mT)
        if bias is not None:
            scores = scores + bias
        weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
        mixed = torch.bmm(weights, values).view(self.kv_heads, tokens, -1)
        return mixed.transpose(0, 1).reshape(tokens, -1)


@dataclass(frozen=True)
class PaddedPrefix:
    """A prefix made ready for the loop."""

    caches: tuple[KeysValues, ...]  # of each layer, with room for the action tokens
    table: KeysValues  # rotary, of the action tokens
    bias: Tensor | None  # (keys,) minus infinity where the room is padded; None: nowhere


class CompiledExpert(nn.Module):
    """All denoising steps of one observation."""

    def __init__(self, module: Pi05, num_steps: int, pad_multiple: int = 1) -> None:
        """Merge the expert's weights; those of `module` stay as they are.

        Args:
            module: The policy.
            num_steps: Euler steps of the schedule.
            pad_multiple: Caches are padded to multiples of so many keys: compiled code is one
                length's.
        """
        super().__init__()
        self.pad_multiple = pad_multiple
        self.sizes, self.horizon = module.sizes.expert, module.sizes.horizon
        self.num_steps = num_steps
        self.action_in_proj, self.action_out_proj = module.action_in_proj, module.action_out_proj
        self.layers = nn.ModuleList(
            FusedLayer(cast(ExpertLayer, layer), self.sizes) for layer in module.expert.layers
        )
        self._run_layer: Callable[..., tuple[Tensor, Tensor, Tensor]] = FusedLayer.forward
        self._enter: Callable[..., Tensor] = CompiledExpert.enter
        self._step: Callable[..., Tensor] = CompiledExpert.step
        device, dtype = module.action_in_proj.weight.device, module.dtype
        with torch.no_grad():
            table = module.modulation(euler_times(num_steps).to(device)).to(dtype)
        self.modulations = [step.contiguous() for step in table.unbind(1)]
        self._zeros = torch.zeros(self.horizon, self.sizes.width, dtype=dtype, device=device)
        self._ones = torch.ones_like(self._zeros[0])

    def compile(self) -> None:
        """torch.compile one layer, whose code all layers share, and what stands around them."""
        self._run_layer = _compiled(FusedLayer.forward)
        self._enter = _compiled(CompiledExpert.enter)
        self._step = _compiled(CompiledExpert.step)

    def prepare(self, cache: PrefixCache) -> PaddedPrefix:
        """Make room for the action tokens behind a prefix of batch 1."""
        start = cache[0][0].shape[2]
        end = start + self.horizon
        added = -(-end // self.pad_multiple) * self.pad_multiple - start
        caches = tuple(
            (F.pad(keys[0], (0, 0, 0, added)), F.pad(values[0], (0, 0, 0, added)))
            for keys, values in cache
        )
        bias = None
        if self.pad_multiple > 1:
            bias = self._zeros.new_zeros(start + added)
            bias[start : start + added - self.horizon] = -torch.inf
        positions = torch.arange(start, end, device=self._zeros.device)
        return PaddedPrefix(caches, rotary_table(positions, self.sizes.head_dim), bias)

    def denoise(self, noise: Tensor, prefix: PaddedPrefix) -> Tensor:
        """Follow the flow from noise to actions, both (horizon, action_dim) in float32.

        The room for the tokens' own keys and values in `prefix` is overwritten.
        """
        actions = noise
        for modulation in self.modulations:
            residual = (self._zeros, self._enter(self, actions), self._ones)
            for i, layer in enumerate(self.layers):
                pair = (modulation[2 * i], modulation[2 * i + 1])
                residual = self._run_layer(
                    layer, residual, pair, prefix.caches[i], prefix.table, prefix.bias
                )
            actions = self._step(self, actions, residual, modulation[-1])
        return actions

    def products_done(self) -> dict[str, int]:
        """None: no kernel of this package runs."""
        return {}

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, scratch space apart."""
        return [*self.parameters(), *self.buffers()]

    def enter(self, actions: Tensor) -> Tensor:
        """(horizon, action_dim) in float32 → (horizon, width)."""
        x = self.action_in_proj(actions.to(self.action_in_proj.weight.dtype))
        return cast(Tensor, x.to(self._zeros.dtype))

    def step(
        self, actions: Tensor, residual: tuple[Tensor, Tensor, Tensor], modulation: Tensor
    ) -> Tensor:
        """One Euler step along the velocity that the last layer's residual gives."""
        x = torch.addcmul(*residual)
        factor, shift, _ = modulation
        normed = torch.addcmul(shift, normalise(x), factor).to(x.dtype)
        velocity = cast(Tensor, self.action_out_proj(normed.to(self.action_out_proj.weight.dtype)))
        return actions - velocity.float() / self.num_steps


def _compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    return torch.compile(function, fullgraph=True, dynamic=False, options=dict(FUSION))
