"""The action expert's denoising loop for torch.compile, for one observation at a time.

Computes the same as Euler steps along `Pi05.velocity`. Merged are q, k and v; gate and up; and each
gated residual with the norm after it. The modulation by the flow's time is computed beforehand, for
a fixed schedule. Attention is two products, where the query heads of a key head are folded into the
token axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import StackSizes
from duqsweep.inference.compiled import compiled
from duqsweep.inference.expert_products import adaptive_norm_linear, gated_linear, plain_linear
from duqsweep.policy.gemma import ExpertLayer, KeysValues, normalise, rotary_table, rotate
from duqsweep.policy.pi05 import Pi05, PrefixCache
from duqsweep.policy.schedule import step_sizes
from duqsweep.spec import UNIFORM, Schedule

# Fuse everything between two products into one kernel, even if it then computes a value more than
# once: a kernel on ten tokens takes no longer than its launch.
FUSION = {
    "combo_kernels": True,
    "split_reductions": False,
    "assert_indirect_indexing": False,  # an assertion per channel would serialise the loads
    "realize_reads_threshold": 100,
    "realize_acc_reads_threshold": 1000,
    "realize_opcount_threshold": 1000,
}


class FusedLayer(nn.Module):
    """One expert layer; its caches hold the prefix's keys and values, then those of the tokens."""

    def __init__(self, layer: ExpertLayer, sizes: StackSizes) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = sizes.heads, sizes.kv_heads, sizes.head_dim
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = adaptive_norm_linear([attention.q_proj, attention.k_proj, attention.v_proj])
        self.o = plain_linear(attention.o_proj)
        self.gate_up = adaptive_norm_linear([mlp.gate_proj, mlp.up_proj])
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
            residual: x, update and gate: the residual stream is x + update * gate.
            modulation: Of the first and the second norm, each (3, width): factor, shift, gate.
            cache: Keys and values, each (kv_heads, prefix + tokens, head_dim); the last `tokens`
                of each are overwritten.
            table: Rotary table of the tokens' positions.
            bias: (prefix + tokens,), minus infinity at padding; None: there is no padding.

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
        # Rows in the order (token, head): the output is then (tokens, heads * head_dim) in memory.
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
    """A prefix prepared for the loop."""

    caches: tuple[KeysValues, ...]  # per layer, with space for the action tokens
    table: KeysValues  # rotary table of the action tokens
    bias: Tensor | None  # (keys,), minus infinity at padding; None: no padding


class CompiledExpert(nn.Module):
    """Runs all denoising steps of one observation; an `Expert` of `backends`."""

    def __init__(
        self,
        module: Pi05,
        num_steps: int,
        pad_multiple: int = 1,
        schedule: Schedule = UNIFORM,
    ) -> None:
        """Merge the expert's weights; those of `module` are not changed.

        Args:
            module: The policy.
            num_steps: Number of Euler steps.
            pad_multiple: Caches are padded to a multiple of this many keys, because each length
                needs its own compiled code.
            schedule: Of the steps.
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
        self._embed: Callable[..., Tensor] = CompiledExpert.embed
        self._euler_step: Callable[..., Tensor] = CompiledExpert.euler_step
        device, dtype = module.action_in_proj.weight.device, module.dtype
        with torch.no_grad():
            table = module.modulations(num_steps, schedule).to(dtype)
        self.modulations = [step.contiguous() for step in table.unbind(1)]
        # Tensors, so that the steps share one compiled form.
        rates = [1.0 / size for size in step_sizes(num_steps, schedule)]
        self.rates = torch.tensor(rates, device=device).unbind()
        self._zeros = torch.zeros(self.horizon, self.sizes.width, dtype=dtype, device=device)
        self._ones = torch.ones_like(self._zeros[0])

    def compile(self) -> None:
        """Compile one layer, whose code all layers share, and the first and last part of a step."""
        settings = {"dynamic": False, "options": dict(FUSION)}
        self._run_layer = compiled(FusedLayer.forward, **settings)
        self._embed = compiled(CompiledExpert.embed, **settings)
        self._euler_step = compiled(CompiledExpert.euler_step, **settings)

    def prepare(self, cache: PrefixCache) -> PaddedPrefix:
        """Pad a prefix of batch 1 with space for the action tokens."""
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
        """Integrate the flow from noise to actions, both (horizon, action_dim) in float32.

        The space for the tokens' keys and values in `prefix` is overwritten.
        """
        actions = noise
        for modulation, rate in zip(self.modulations, self.rates, strict=True):
            residual = (self._zeros, self._embed(self, actions), self._ones)
            for i, layer in enumerate(self.layers):
                pair = (modulation[2 * i], modulation[2 * i + 1])
                residual = self._run_layer(
                    layer, residual, pair, prefix.caches[i], prefix.table, prefix.bias
                )
            actions = self._euler_step(self, actions, residual, modulation[-1], rate)
        return actions

    def products_done(self) -> dict[str, int]:
        """Nothing: no kernel of this package runs."""
        return {}

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers."""
        return [*self.parameters(), *self.buffers()]

    def embed(self, actions: Tensor) -> Tensor:
        """(horizon, action_dim) in float32 → (horizon, width)."""
        x = self.action_in_proj(actions.to(self.action_in_proj.weight.dtype))
        return cast(Tensor, x.to(self._zeros.dtype))

    def euler_step(
        self,
        actions: Tensor,
        residual: tuple[Tensor, Tensor, Tensor],
        modulation: Tensor,
        rate: Tensor,
    ) -> Tensor:
        """The last norm and projection, and one Euler step of 1 / `rate` along the velocity."""
        x = torch.addcmul(*residual)
        factor, shift, _ = modulation
        normed = torch.addcmul(shift, normalise(x), factor).to(x.dtype)
        velocity = cast(Tensor, self.action_out_proj(normed.to(self.action_out_proj.weight.dtype)))
        return actions - velocity.float() / rate
