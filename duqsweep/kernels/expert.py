"""Launches the expert's kernels: five a layer, one between two denoising steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.codes import IntegerWeight
from duqsweep.kernels.expert_attention import attention_kernel
from duqsweep.kernels.expert_entry import gate_up_kernel, qkv_kernel
from duqsweep.kernels.expert_exit import exit_kernel
from duqsweep.kernels.expert_step import step_kernel
from duqsweep.kernels.expert_weights import Weight
from duqsweep.kernels.launches import note

TOKENS = 16  # rows of a tile; the buffers' tokens are a multiple of it
ROTATED_EARLY = 32  # blocks up to this size are rotated where the hidden channels are made


@dataclass(frozen=True)
class Shape:
    """Sizes of an expert and of its action chunk."""

    tokens: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    action_dim: int

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= 64:
            raise EvaluationError(f"the expert's kernels take 1 to 64 tokens, got {self.tokens}")
        for name in ("width", "hidden", "head_dim"):
            value = getattr(self, name)
            if value & (value - 1) or value < 32:
                raise EvaluationError(
                    f"the expert's kernels take a {name} that is a power of two >= 32, got {value}"
                )
        mixed = self.heads * self.head_dim
        if mixed & (mixed - 1):
            raise EvaluationError(
                f"the expert's kernels take heads * head_dim that is a power of two, got {mixed}"
            )

    @property
    def padded(self) -> int:
        """Rows of the buffers."""
        return -(-self.tokens // TOKENS) * TOKENS


@dataclass(frozen=True)
class Cut:
    """How a product is cut: output channels a program, spans of input channels, warps."""

    columns: int
    batches: int
    warps: int


@dataclass(frozen=True)
class AttentionCut:
    """How attention is cut: rows and keys and channels a program, warps."""

    rows: int = 16
    keys: int = 64
    channels: int = 128
    warps: int = 8


@dataclass(frozen=True)
class Cuts:
    """All of a layer's kernels, for one format of the weights."""

    qkv: Cut
    gate_up: Cut
    o: Cut
    down: Cut
    attention: AttentionCut = AttentionCut()


CUTS = {
    16: Cuts(Cut(8, 8, 8), Cut(32, 8, 16), Cut(8, 8, 8), Cut(8, 16, 16)),
    8: Cuts(Cut(8, 8, 8), Cut(32, 8, 8), Cut(8, 8, 8), Cut(8, 16, 16)),
    4: Cuts(Cut(8, 8, 8), Cut(32, 8, 8), Cut(8, 8, 8), Cut(8, 16, 16)),
}


@dataclass(frozen=True)
class Buffers:
    """What the kernels pass on to one another; rows from `tokens` on hold anything."""

    streams: tuple[Tensor, Tensor]  # (padded, width): of even and of odd steps
    moved: Tensor  # (padded, width): the stream in the order of its next reader
    queries: Tensor  # (padded, heads * head_dim)
    keys: Tensor  # (kv_heads, padded, head_dim)
    values: Tensor
    mixed: Tensor  # (padded, heads * head_dim), in the order that o reads
    hidden: Tensor  # (padded, hidden), in the order that down reads
    peaks: Tensor  # (padded * hidden / 16,) float32
    partial: Tensor  # float32, of attention's chunks
    chunk_peaks: Tensor
    chunk_sums: Tensor
    arrivals: Tensor  # int32, zeros between launches


def buffers(shape: Shape, chunks: int, like: Tensor) -> Buffers:
    """Room for one denoising loop of at most `chunks` (a power of two) chunks of keys."""
    padded, mixed = shape.padded, shape.heads * shape.head_dim

    def rows(*sizes: int) -> Tensor:
        return torch.zeros(*sizes, dtype=like.dtype, device=like.device)

    def floats(size: int) -> Tensor:
        return torch.zeros(size, device=like.device)

    own = (shape.kv_heads, padded, shape.head_dim)
    # Tiles of up to 64 rows, each channel part with sums of its own.
    tiles = triton.cdiv(padded * shape.heads, 64) * 64 * chunks
    return Buffers(
        streams=(rows(padded, shape.width), rows(padded, shape.width)),
        moved=rows(padded, shape.width),
        queries=rows(padded, mixed),
        keys=rows(*own),
        values=rows(*own),
        mixed=rows(padded, mixed),
        hidden=rows(padded, shape.hidden),
        peaks=floats(padded * shape.hidden // 16),
        partial=floats(tiles * shape.head_dim),
        chunk_peaks=floats(tiles * 16),
        chunk_sums=floats(tiles * 16),
        arrivals=torch.zeros(tiles, dtype=torch.int32, device=like.device),
    )


@dataclass(frozen=True)
class Launcher:
    """Launches kernels for one shape; each waits for the one before it, on the GPU, by itself."""

    shape: Shape
    buffers: Buffers
    interpreted: bool  # by Triton's interpreter, on a CPU

    def qkv(
        self, stream: Tensor, mod: Tensor, weight: Weight, table: tuple[Tensor, Tensor], cut: Cut
    ) -> None:
        """Fills `queries`, `keys` and `values`; mod: factor and shift in the weight's order."""
        shape, room = self.shape, self.buffers
        columns = min(cut.columns, shape.head_dim // 2)
        tiles = (shape.heads + 2 * shape.kv_heads) * shape.head_dim // 2 // columns
        cosines, sines = table
        qkv_kernel[(shape.padded // TOKENS, tiles)](
            stream,
            mod[0],
            mod[1],
            *_tensors(weight),
            cosines,
            sines,
            room.queries,
            room.keys,
            room.values,
            _top(weight),
            shape.padded,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            COLUMNS=columns,
            BLOCK=_block(weight),
            **self._options(shape.width, weight, cut),
        )
        note("expert_qkv_" + name_of(weight))

    def attention(
        self, prefix: Any, inverse: Tensor | None, chunks: int, cut: AttentionCut
    ) -> None:
        """Fills `mixed`; prefix: keys and values, each (kv_heads, tokens, head_dim)."""
        shape, room = self.shape, self.buffers
        keys, values = prefix
        length = keys.shape[1]
        group = shape.heads // shape.kv_heads
        columns = min(cut.channels, shape.head_dim)
        needed = triton.cdiv(length + shape.tokens, cut.keys)
        if needed > chunks:
            raise EvaluationError(f"a prefix of {length} tokens needs {needed} chunks > {chunks}")
        tiles = triton.cdiv(shape.tokens * group, cut.rows)
        attention_kernel[(needed, tiles, shape.kv_heads * (shape.head_dim // columns))](
            room.queries,
            keys,
            values,
            room.keys,
            room.values,
            room.mixed,
            room.arrivals if inverse is None else inverse,
            room.partial,
            room.chunk_peaks,
            room.chunk_sums,
            room.arrivals,
            length,
            shape.tokens,
            shape.padded,
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
            CHUNKS=chunks,
            ORDERED=inverse is not None,
            **self._launch(cut.warps),
        )
        note("expert_attention")

    def gate_up(self, stream: Tensor, mod: Tensor, weight: Weight, down: Weight, cut: Cut) -> int:
        """Fills `hidden`, and `peaks` where it rotates for `down`: their columns, else 0."""
        shape, room = self.shape, self.buffers
        block = _block(down)
        early = isinstance(down, IntegerWeight) and block <= ROTATED_EARLY
        columns = min(max(cut.columns, block if early else 1), shape.hidden)
        tiles = shape.hidden // columns
        gate_up_kernel[(shape.padded // TOKENS, tiles)](
            stream,
            mod[0],
            mod[1],
            *_tensors(weight),
            room.hidden,
            room.peaks,
            _top(weight),
            HIDDEN=shape.hidden,
            AFTER=block if early else 0,
            COLUMNS=columns,
            BLOCK=_block(weight),
            **self._options(shape.width, weight, cut),
        )
        note("expert_gate_up_" + name_of(weight))
        return tiles if early else 0

    def exit(
        self,
        rows: Tensor,
        tiles: int,
        weight: Weight,
        gate: Tensor,
        stream: Tensor,
        inverse: Tensor | None,
        cut: Cut,
    ) -> None:
        """Adds gate times the product to `stream`, in place; fills `moved` where it is read."""
        shape, room = self.shape, self.buffers
        columns = min(cut.columns, shape.width)
        exit_kernel[(shape.padded // TOKENS, shape.width // columns)](
            rows,
            room.peaks,
            *_tensors(weight),
            gate,
            stream,
            room.moved,
            room.arrivals if inverse is None else inverse,
            _top(weight),
            OUTPUTS=shape.width,
            TILES=tiles,
            ORDERED=inverse is not None,
            COLUMNS=columns,
            BLOCK=_block(weight),
            **self._options(rows.shape[1], weight, cut),
        )
        note("expert_exit_" + name_of(weight))

    def step(
        self,
        actions: Tensor,
        mod: Tensor,
        projections: tuple[Tensor, Tensor, Tensor, Tensor],
        following: Tensor,
        index: int,
        inverse: Tensor | None,
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
            room.moved,
            room.arrivals if inverse is None else inverse,
            shape.tokens,
            1.0 / num_steps,
            ACTION=shape.action_dim,
            CHANNELS=max(triton.next_power_of_2(shape.action_dim), 16),
            LEAVE=index > 0,
            ENTER=not last,
            ORDERED=inverse is not None,
            ROWS=TOKENS,
            COLUMNS=columns,
            WIDTH=shape.width,
            BATCHES=min(8, shape.width // 16),
            **self._launch(8),
        )
        note("expert_step")

    def _options(self, width: int, weight: Weight, cut: Cut) -> dict[str, Any]:
        """Constants that all products have."""
        groups, form, narrowest = 1, 16, 16
        if isinstance(weight, IntegerWeight):
            groups, narrowest = weight.scales.shape[1], 32
            form = 4 if weight.packed else 8
        return {
            "ROWS": TOKENS,
            "WIDTH": width,
            "BATCHES": max(groups, min(cut.batches, width // narrowest)),
            "GROUPS": groups,
            "FORMAT": form,
            "ASSEMBLY": not self.interpreted,
            **self._launch(cut.warps),
        }

    def _launch(self, warps: int) -> dict[str, Any]:
        options: dict[str, Any] = {"num_warps": warps, "PDL": not self.interpreted}
        if not self.interpreted:
            options["launch_pdl"] = True
        return options


def name_of(weight: Weight) -> str:
    """The format of a weight and of what it multiplies, as kernels are counted."""
    if isinstance(weight, Tensor):
        return str(weight.dtype).removeprefix("torch.")
    return "w4a8" if weight.packed else "w8a8"


def format_of(weight: Weight) -> int:
    """Bits that a weight is stored in; 16 for any floating point."""
    if isinstance(weight, Tensor):
        return 16
    return 4 if weight.packed else 8


def _tensors(weight: Weight) -> tuple[Tensor, Tensor]:
    if isinstance(weight, Tensor):
        return weight, weight
    return weight.codes, weight.scales


def _block(weight: Weight) -> int:
    return weight.block if isinstance(weight, IntegerWeight) else 1


def _top(weight: Weight) -> float:
    return float((1 << (weight.act_bits - 1)) - 1) if isinstance(weight, IntegerWeight) else 1.0
