"""Launches the expert's Triton kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.expert.attention import attention_kernel
from duqsweep.kernels.expert.buffers import Buffers
from duqsweep.kernels.expert.euler_step import euler_step_kernel
from duqsweep.kernels.expert.limits import TOKENS
from duqsweep.kernels.expert.linear_residual import linear_residual_kernel
from duqsweep.kernels.expert.norm_linear import gate_up_kernel, qkv_kernel
from duqsweep.kernels.expert.tiling import AttentionTileConfig, ExpertShape, TileConfig
from duqsweep.kernels.expert.token_kernels import (
    combine_partials_kernel,
    norm_quant_kernel,
    quant_kernel,
)
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import overlaps
from duqsweep.kernels.projection_weights import ProjectionWeights


@dataclass(frozen=True)
class ExpertKernels:
    """Launches the kernels for one shape; on the GPU, each kernel waits for the previous one."""

    shape: ExpertShape
    buffers: Buffers
    chunks: int  # of keys, for which the buffers have space
    interpreted: bool  # whether Triton's interpreter runs the kernels, on a CPU

    def qkv(
        self,
        stream: Tensor,
        mod: Tensor,
        weight: ProjectionWeights,
        table: tuple[Tensor, Tensor],
        config: TileConfig,
    ) -> None:
        """Norm and product; fills `queries`, `keys` and `values`.

        Args:
            stream: (padded, width) residual stream.
            mod: (3, width): the norm's factor, shift and gate.
            weight: Merged q, k and v.
            table: Rotary cosines and sines, each (padded, head_dim / 2).
            config: How to divide the product.
        """
        shape, buffers = self.shape, self.buffers
        columns = min(config.columns, shape.head_dim // 2)
        heads = shape.heads + 2 * shape.kv_heads
        rows = self._normed_codes(stream, mod, weight)
        cosines, sines = table
        qkv_kernel[(heads * (shape.head_dim // 2 // columns),)](
            rows,
            buffers.code_scales,
            mod[0],
            mod[1],
            weight.values,
            weight.scales_or_values,
            cosines,
            sines,
            buffers.queries,
            buffers.keys,
            buffers.values,
            shape.tokens,
            shape.padded,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            COLUMNS=columns,
            **self._options(shape.width, weight, config),
        )
        note("expert_qkv_" + weight.format)

    def attention(self, prefix: tuple[Tensor, Tensor], config: AttentionTileConfig) -> int:
        """Attention, for each chunk of keys separately; `combine_partials` combines the results.

        Args:
            prefix: Keys and values, each (kv_heads, tokens, head_dim).
            config: How to divide the work.

        Returns:
            The number of chunks.

        Raises:
            EvaluationError: The prefix has more tokens than the buffers have space for.
        """
        shape, buffers = self.shape, self.buffers
        keys, values = prefix
        length = keys.shape[1]
        group = shape.heads // shape.kv_heads
        columns = min(config.channels, shape.head_dim)
        needed = -(-(length + shape.tokens) // config.keys)
        if needed > self.chunks:
            raise EvaluationError(
                f"the expert's kernels attend to {self.chunks * config.keys - shape.tokens} prefix "
                f"tokens at most, got {length}"
            )
        tiles = triton.cdiv(shape.tokens * group, config.rows)
        attention_kernel[(needed, tiles, shape.kv_heads * (shape.head_dim // columns))](
            buffers.queries,
            keys,
            values,
            buffers.keys,
            buffers.values,
            buffers.partial,
            buffers.chunk_maxima,
            buffers.chunk_sums,
            length,
            shape.tokens,
            shape.padded,
            shape.padded * group,
            keys.stride(0),
            keys.stride(1),
            values.stride(0),
            values.stride(1),
            GROUP=group,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            ROWS=config.rows,
            CHUNK=config.keys,
            COLUMNS=columns,
            CHUNKS=self.chunks,
            **self._launch(config.warps),
        )
        note("expert_attention")
        return needed

    def combine_partials(self, chunks: int, o: ProjectionWeights) -> None:
        """Combine the chunks; fills `attn`, or if `o` is integer, its quantized input `codes`."""
        shape, buffers = self.shape, self.buffers
        integer = o.is_integer
        combine_partials_kernel[(shape.tokens,)](
            buffers.partial,
            buffers.chunk_maxima,
            buffers.chunk_sums,
            buffers.codes if o.permutation is None else o.permutation,
            buffers.codes if integer else buffers.attn,
            buffers.code_scales,
            o.act_qmax,
            chunks,
            shape.padded * shape.heads // shape.kv_heads,
            GROUP=shape.heads // shape.kv_heads,
            HEADS=shape.heads,
            HEAD_DIM=shape.head_dim,
            CHUNKS=self.chunks,
            READ=triton.next_power_of_2(chunks),
            BLOCK=o.block,
            PERMUTED=o.permutation is not None,
            INTEGER=integer,
            DTYPE=tl.float32 if self.interpreted else tl.bfloat16,
            **self._launch(16),
        )
        note("expert_combine_partials")

    def gate_up(
        self, stream: Tensor, mod: Tensor, weight: ProjectionWeights, config: TileConfig
    ) -> None:
        """Norm, product and gated GELU; fills `hidden`. Arguments as in `qkv`."""
        shape, buffers = self.shape, self.buffers
        columns = min(config.columns, shape.hidden)
        rows = self._normed_codes(stream, mod, weight)
        gate_up_kernel[(shape.hidden // columns,)](
            rows,
            buffers.code_scales,
            mod[0],
            mod[1],
            weight.values,
            weight.scales_or_values,
            buffers.hidden,
            shape.tokens,
            HIDDEN=shape.hidden,
            COLUMNS=columns,
            **self._options(shape.width, weight, config),
        )
        note("expert_gate_up_" + weight.format)

    def o(
        self, weight: ProjectionWeights, gate: Tensor, stream: Tensor, config: TileConfig
    ) -> None:
        """Adds gate times the product of attention's result to `stream`, in place."""
        rows = self.buffers.codes if weight.is_integer else self.buffers.attn
        self._linear_residual(
            rows, self.shape.heads * self.shape.head_dim, weight, gate, stream, config
        )

    def down(
        self, weight: ProjectionWeights, gate: Tensor, stream: Tensor, config: TileConfig
    ) -> None:
        """Adds gate times the product of `hidden` to `stream`, in place."""
        buffers, width = self.buffers, self.shape.hidden
        rows = buffers.hidden
        if weight.is_integer:
            rows = buffers.codes
            quant_kernel[(self.shape.tokens,)](
                buffers.hidden,
                rows if weight.permutation is None else weight.permutation,
                rows,
                buffers.code_scales,
                weight.act_qmax,
                WIDTH=width,
                BLOCK=weight.block,
                PERMUTED=weight.permutation is not None,
                **self._launch(8),
            )
            note("expert_quant")
        self._linear_residual(rows, width, weight, gate, stream, config)

    def euler_step(
        self,
        actions: Tensor,
        mod: Tensor,
        projections: tuple[Tensor, Tensor, Tensor, Tensor],
        new_actions: Tensor,
        index: int,
        last: bool,
        step_size: float,
    ) -> None:
        """Finish denoising step `index` - 1 and start step `index`, where such steps exist.

        Args:
            actions: (horizon, action_dim) float32.
            mod: (3, width): factor, shift and gate of the last norm.
            projections: Weight and bias of action_out_proj, then of action_in_proj.
            new_actions: Where the updated actions are stored; not written for index 0.
            index: Of the step that starts; 0 for the first.
            last: Whether no step starts.
            step_size: By how much time falls in the step that is finished.
        """
        shape, buffers = self.shape, self.buffers
        columns = min(64, shape.width)
        euler_step_kernel[(shape.padded // TOKENS, 1 if last else shape.width // columns)](
            actions,
            buffers.streams[(index + 1) % 2],
            mod[0],
            mod[1],
            *projections,
            new_actions,
            buffers.streams[index % 2],
            shape.tokens,
            step_size,
            ACTION=shape.action_dim,
            CHANNELS=max(triton.next_power_of_2(shape.action_dim), 16),
            FINISH=index > 0,
            START=not last,
            ROWS=TOKENS,
            COLUMNS=columns,
            WIDTH=shape.width,
            BATCHES=min(8, shape.width // 16),
            **self._launch(8),
        )
        note("expert_euler_step")

    def _normed_codes(self, stream: Tensor, mod: Tensor, weight: ProjectionWeights) -> Tensor:
        """The input of qkv or gate_up: int8, or the stream, which their kernels norm themselves."""
        if not weight.is_integer:
            return stream
        buffers = self.buffers
        norm_quant_kernel[(self.shape.tokens,)](
            stream,
            mod[0],
            mod[1],
            buffers.codes if weight.permutation is None else weight.permutation,
            buffers.codes,
            buffers.code_scales,
            weight.act_qmax,
            WIDTH=self.shape.width,
            BLOCK=weight.block,
            PERMUTED=weight.permutation is not None,
            **self._launch(4),
        )
        note("expert_norm_quant")
        return buffers.codes

    def _linear_residual(
        self,
        rows: Tensor,
        width: int,
        weight: ProjectionWeights,
        gate: Tensor,
        stream: Tensor,
        config: TileConfig,
    ) -> None:
        columns = min(config.columns, self.shape.width)
        linear_residual_kernel[(self.shape.width // columns,)](
            rows,
            self.buffers.code_scales,
            weight.values,
            weight.scales_or_values,
            gate,
            stream,
            self.shape.tokens,
            OUTPUTS=self.shape.width,
            COLUMNS=columns,
            **self._options(width, weight, config),
        )
        note("expert_linear_residual_" + weight.format)

    def _options(self, width: int, weight: ProjectionWeights, config: TileConfig) -> dict[str, Any]:
        """Compile-time constants of all products."""
        groups, min_span = 1, 16
        if weight.is_integer:
            groups, min_span = weight.groups, 32
        return {
            "TILES": self.shape.padded // TOKENS,
            "ROWS": TOKENS,
            "WIDTH": width,
            "BATCHES": max(groups, min(config.batches, width // min_span)),
            "GROUPS": groups,
            "FORMAT": weight.stored_bits,
            "FLAT": config.flat,
            "INLINE_ASM": not self.interpreted,
            **self._launch(config.warps),
        }

    def _launch(self, warps: int) -> dict[str, Any]:
        pdl = overlaps(self.buffers.codes.device)
        return {"num_warps": warps, "num_stages": 1, "PDL": pdl, "launch_pdl": pdl}
