"""What the expert's kernels pass on to one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duqsweep.kernels.expert.tiling import ExpertShape


@dataclass(frozen=True)
class Buffers:
    """Written and read by the kernels; rows from `tokens` on hold anything."""

    streams: tuple[Tensor, Tensor]  # (padded, width): of even and of odd steps
    queries: Tensor  # (padded, heads * head_dim)
    keys: Tensor  # (kv_heads, padded, head_dim): rotated
    values: Tensor
    partial: Tensor  # (kv_heads, chunks, padded * group, head_dim) float32: attention's chunks
    chunk_peaks: Tensor  # (kv_heads, chunks, padded * group) float32
    chunk_sums: Tensor
    mixed: Tensor  # (padded, heads * head_dim)
    hidden: Tensor  # (padded, hidden)
    codes: Tensor  # (padded * widest,) int8: what the next product multiplies
    code_scales: Tensor  # (padded,) float32


def buffers(shape: ExpertShape, chunks: int, like: Tensor) -> Buffers:
    """Room for one denoising loop whose keys are cut into at most `chunks` chunks."""
    padded, mixed = shape.padded, shape.heads * shape.head_dim
    pairs = (shape.kv_heads, chunks, padded * shape.heads // shape.kv_heads)

    def rows(*sizes: int) -> Tensor:
        return torch.zeros(*sizes, dtype=like.dtype, device=like.device)

    def floats(*sizes: int) -> Tensor:
        return torch.zeros(*sizes, device=like.device)

    widest = max(shape.width, mixed, shape.hidden)
    return Buffers(
        streams=(rows(padded, shape.width), rows(padded, shape.width)),
        queries=rows(padded, mixed),
        keys=rows(shape.kv_heads, padded, shape.head_dim),
        values=rows(shape.kv_heads, padded, shape.head_dim),
        partial=floats(*pairs, shape.head_dim),
        chunk_peaks=floats(*pairs),
        chunk_sums=floats(*pairs),
        mixed=rows(padded, mixed),
        hidden=rows(padded, shape.hidden),
        codes=torch.zeros(padded * widest, dtype=torch.int8, device=like.device),
        code_scales=floats(padded),
    )
