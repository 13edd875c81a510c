"""Launches the expert's kernels: products, attention, and what turns tokens into codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.expert.attention import attention_kernel
from duqsweep.kernels.expert.buffers import Buffers
from duqsweep.kernels.expert.euler_step import step_kernel
from duqsweep.kernels.expert.limits import TOKENS
from duqsweep.kernels.expert.linear_residual import exit_kernel
from duqsweep.kernels.expert.norm_linear import gate_up_kernel, qkv_kernel
from duqsweep.kernels.expert.tiling import AttentionCut, Cut, ExpertShape
from duqsweep.kernels.expert.token_kernels import mix_kernel, norm_kernel, round_kernel
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import overlaps
from duqsweep.kernels.projection_weights import ProjectionWeights


@dataclass(frozen=True)
class Launcher:
    """Launches kernels for one shape; each waits for the one before it, on the GPU, by itself."""

    shape: ExpertShape
    buffers: Buffers
    chunks: int  # of keys, that the buffers have room for
    interpreted: bool  # by Triton's interpreter, on a CPU

    def qkv(
        self,
        stream: Tensor,
        mod: Tensor,
        weight: ProjectionWeights,
        table: tuple[Tensor, Tensor],
        cut: Cut,
    ) -> None:
        """Fills `queries`, `keys` and `values`; mod: the norm's factor and shift."""
        shape, room = self.shape, self.buffers
        columns = min(cut.columns, shape.head_dim // 2)
        heads = shape.heads + 2 * shape.kv_heads
        rows = self._entered(stream, mod, weight)
        cosines, sines = table
        qkv_kernel[(heads * (shape.head_dim // 2 // columns),)](
            rows,
            room.code_scales,
            mod[0],
            mod[1],
            weight.values,
            weight.scales_or_values,
            cosines,
            sines,
            room.queries,
            room.keys,
            room.values,
            shape.tokens,
            shape.padded,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            COLUMNS=columns,
            **self._options(shape.width, weight, cut),
        )
        note("expert_qkv_" + weight.format)

    def attention(self, prefix: tuple[Tensor, Tensor], cut: AttentionCut) -> int:
        """Fills what `mix` reads, in as many chunks of keys as it returns.

        prefix: keys and values, each (kv_heads, tokens, head_dim).

        Raises:
            EvaluationError: The prefix is longer than there is room for.
        """
        shape, room = self.shape, self.buffers
        keys, values = prefix
        length = keys.shape[1]
        group = shape.heads // shape.kv_heads
        columns = min(cut.channels, shape.head_dim)
        needed = -(-(length + shape.tokens) // cut.keys)
        if needed > self.chunks:
            raise EvaluationError(
                f"the expert's kernels attend to {self.chunks * cut.keys - shape.tokens} prefix "
                f"tokens at most, got {length}"
            )
        tiles = triton.cdiv(shape.tokens * group, cut.rows)
        attention_kernel[(needed, tiles, shape.kv_heads * (shape.head_dim // columns))](
            room.queries,
            keys,
            values,
            room.keys,
            room.values,
            room.partial,
            room.chunk_peaks,
            room.chunk_sums,
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
            ROWS=cut.rows,
            CHUNK=cut.keys,
            COLUMNS=columns,
            CHUNKS=self.chunks,
            **self._launch(cut.warps),
        )
        note("expert_attention")
        return needed

    def mix(self, chunks: int, reader: ProjectionWeights) -> None:
        """Fills `mixed`, or the codes that `reader` multiplies."""
        shape, room = self.shape, self.buffers
        integer = reader.is_integer
        order = reader.permutation
        mix_kernel[(shape.tokens,)](
            room.partial,
            room.chunk_peaks,
            room.chunk_sums,
            room.codes if order is None else order,
            room.codes if integer else room.mixed,
            room.code_scales,
            reader.act_qmax,
            chunks,
            shape.padded * shape.heads // shape.kv_heads,
            GROUP=shape.heads // shape.kv_heads,
            HEADS=shape.heads,
            HEAD_DIM=shape.head_dim,
            CHUNKS=self.chunks,
            BLOCK=reader.block,
            ORDERED=order is not None,
            INTEGER=integer,
            DTYPE=tl.float32 if self.interpreted else tl.bfloat16,
            **self._launch(16),
        )
        note("expert_mix")

    def gate_up(self, stream: Tensor, mod: Tensor, weight: ProjectionWeights, cut: Cut) -> None:
        """Fills `hidden`; mod: the norm's factor and shift."""
        shape, room = self.shape, self.buffers
        columns = min(cut.columns, shape.hidden)
        rows = self._entered(stream, mod, weight)
        gate_up_kernel[(shape.hidden // columns,)](
            rows,
            room.code_scales,
            mod[0],
            mod[1],
            weight.values,
            weight.scales_or_values,
            room.hidden,
            shape.tokens,
            HIDDEN=shape.hidden,
            COLUMNS=columns,
            **self._options(shape.width, weight, cut),
        )
        note("expert_gate_up_" + weight.format)

    def o(self, weight: ProjectionWeights, gate: Tensor, stream: Tensor, cut: Cut) -> None:
        """Adds gate times the product of what `attention` left to `stream`, in place."""
        rows = self.buffers.codes if weight.is_integer else self.buffers.mixed
        self._exit(rows, self.shape.heads * self.shape.head_dim, weight, gate, stream, cut)

    def down(self, weight: ProjectionWeights, gate: Tensor, stream: Tensor, cut: Cut) -> None:
        """Adds gate times the product of `hidden` to `stream`, in place."""
        room, width = self.buffers, self.shape.hidden
        rows = room.hidden
        if weight.is_integer:
            rows = room.codes
            round_kernel[(self.shape.tokens,)](
                room.hidden,
                rows if weight.permutation is None else weight.permutation,
                rows,
                room.code_scales,
                weight.act_qmax,
                WIDTH=width,
                BLOCK=weight.block,
                ORDERED=weight.permutation is not None,
                **self._launch(8),
            )
            note("expert_round")
        self._exit(rows, width, weight, gate, stream, cut)

    def step(
        self,
        actions: Tensor,
        mod: Tensor,
        projections: tuple[Tensor, Tensor, Tensor, Tensor],
        following: Tensor,
        index: int,
        num_steps: int,
    ) -> None:
        """Leaves denoising step `index` - 1 and enters step `index`, where there are such.

        projections: weight and bias of the projection out of the stream, and of that into it.
        """
        shape, room = self.shape, self.buffers
        last = index == num_steps
        columns = min(64, shape.width)
        step_kernel[(shape.padded // TOKENS, 1 if last else shape.width // columns)](
            actions,
            room.streams[(index + 1) % 2],
            mod[0],
            mod[1],
            *projections,
            following,
            room.streams[index % 2],
            shape.tokens,
            1.0 / num_steps,
            ACTION=shape.action_dim,
            CHANNELS=max(triton.next_power_of_2(shape.action_dim), 16),
            LEAVE=index > 0,
            ENTER=not last,
            ROWS=TOKENS,
            COLUMNS=columns,
            WIDTH=shape.width,
            BATCHES=min(8, shape.width // 16),
            **self._launch(8),
        )
        note("expert_step")

    def _entered(self, stream: Tensor, mod: Tensor, weight: ProjectionWeights) -> Tensor:
        """What an entry's product reads: codes, or the stream, which it norms itself."""
        if not weight.is_integer:
            return stream
        room = self.buffers
        norm_kernel[(self.shape.tokens,)](
            stream,
            mod[0],
            mod[1],
            room.codes if weight.permutation is None else weight.permutation,
            room.codes,
            room.code_scales,
            weight.act_qmax,
            WIDTH=self.shape.width,
            BLOCK=weight.block,
            ORDERED=weight.permutation is not None,
            **self._launch(4),
        )
        note("expert_norm")
        return room.codes

    def _exit(
        self,
        rows: Tensor,
        width: int,
        weight: ProjectionWeights,
        gate: Tensor,
        stream: Tensor,
        cut: Cut,
    ) -> None:
        columns = min(cut.columns, self.shape.width)
        exit_kernel[(self.shape.width // columns,)](
            rows,
            self.buffers.code_scales,
            weight.values,
            weight.scales_or_values,
            gate,
            stream,
            self.shape.tokens,
            OUTPUTS=self.shape.width,
            COLUMNS=columns,
            **self._options(width, weight, cut),
        )
        note("expert_exit_" + weight.format)

    def _options(self, width: int, weight: ProjectionWeights, cut: Cut) -> dict[str, Any]:
        """Constants that all products have."""
        groups, narrowest = 1, 16
        if weight.is_integer:
            groups, narrowest = weight.groups, 32
        return {
            "TILES": self.shape.padded // TOKENS,
            "ROWS": TOKENS,
            "WIDTH": width,
            "BATCHES": max(groups, min(cut.batches, width // narrowest)),
            "GROUPS": groups,
            "FORMAT": weight.stored_bits,
            "FLAT": cut.flat,
            "ASSEMBLY": not self.interpreted,
            **self._launch(cut.warps),
        }

    def _launch(self, warps: int) -> dict[str, Any]:
        pdl = overlaps(self.buffers.codes.device)
        return {"num_warps": warps, "num_stages": 1, "PDL": pdl, "launch_pdl": pdl}
