"""The buffers through which the expert's Triton kernels pass results to one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duqsweep.kernels.expert.tiling import ExpertShape


@dataclass(frozen=True)
class Buffers:
    """Buffers of one denoising loop; rows from `tokens` on are undefined."""

    streams: tuple[Tensor, Tensor]  # (padded, width) each: residual stream of even and of odd steps
    queries: Tensor  # (padded, heads * head_dim)
    keys: Tensor  # (kv_heads, padded, head_dim), with rotary positions
    values: Tensor
    partial: Tensor  # (kv_heads, chunks, padded * group, head_dim) float32: per chunk of keys
    chunk_maxima: Tensor  # (kv_heads, chunks, padded * group) float32
    chunk_sums: Tensor
    attn: Tensor  # (padded, heads * head_dim): attention's result
    hidden: Tensor  # (padded, hidden)
    codes: Tensor  # (padded * widest,) int8: quantized input of the next product
    code_scales: Tensor  # (padded,) float32


def allocate_buffers(shape: ExpertShape, chunks: int, like: Tensor) -> Buffers:
    """Allocate buffers for one denoising loop.

    Args:
        shape: Sizes of the expert.
        chunks: The most chunks into which attention splits the keys.
        like: A tensor of the dtype and device of the residual stream.
    """
    padded, attn = shape.padded, shape.heads * shape.head_dim
    pairs = (shape.kv_heads, chunks, padded * shape.heads // shape.kv_heads)

    def rows(*sizes: int) -> Tensor:
        return torch.zeros(*sizes, dtype=like.dtype, device=like.device)

    def floats(*sizes: int) -> Tensor:
        return torch.zeros(*sizes, device=like.device)

    widest = max(shape.width, attn, shape.hidden)
    return Buffers(
        streams=(rows(padded, shape.width), rows(padded, shape.width)),
        queries=rows(padded, attn),
        keys=rows(shape.kv_heads, padded, shape.head_dim),
        values=rows(shape.kv_heads, padded, shape.head_dim),
        partial=floats(*pairs, shape.head_dim),
        chunk_maxima=floats(*pairs),
        chunk_sums=floats(*pairs),
        attn=rows(padded, attn),
        hidden=rows(padded, shape.hidden),
        codes=torch.zeros(padded * widest, dtype=torch.int8, device=like.device),
        code_scales=floats(padded),
    )
