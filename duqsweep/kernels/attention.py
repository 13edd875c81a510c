"""Attention of tokens among themselves, from a merged product of queries, keys and values."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import overlaps

LOG2_E = 1.4426950408889634
ROWS = 64  # queries of a program
KEYS = 64  # that it takes at a time
WIDE_HEAD = 128
NARROWEST_HEAD = 16  # that a matrix product on tensor cores takes


@triton.jit
def _attend(
    qkv,
    out,
    tokens,
    factor,
    KEY_TILES: tl.constexpr,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: ROWS pairs (token, head of the group) of one key head in one sequence."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    HEADS: tl.constexpr = KV_HEADS * GROUP
    WIDTH: tl.constexpr = (HEADS + 2 * KV_HEADS) * HEAD_DIM
    kv_head = tl.program_id(1)
    first = tl.program_id(2) * tokens
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token = first + row // GROUP
    head = kv_head * GROUP + row % GROUP
    inside = row < tokens * GROUP
    d = tl.arange(0, PADDED)
    real = d < HEAD_DIM
    place = token[:, None] * WIDTH + head[:, None] * HEAD_DIM + d[None, :]
    query = tl.load(qkv + place, mask=inside[:, None] & real[None, :], other=0.0)
    key = qkv + (HEADS + kv_head) * HEAD_DIM
    value = key + KV_HEADS * HEAD_DIM
    largest = tl.full((ROWS,), -float("inf"), tl.float32)
    summed = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, PADDED), tl.float32)
    for tile in range(KEY_TILES):
        other = tile * KEYS + tl.arange(0, KEYS)
        seen = other < tokens
        offset = (first + other)[:, None] * WIDTH + d[None, :]
        mask = seen[:, None] & real[None, :]
        keys = tl.load(key + offset, mask=mask, other=0.0)
        values = tl.load(value + offset, mask=mask, other=0.0)
        scores = tl.dot(query, keys.T, input_precision="ieee") * factor
        scores = tl.where(seen[None, :], scores, -float("inf"))
        highest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - highest[:, None])
        kept = tl.exp2(largest - highest)
        summed = summed * kept + tl.sum(weights, 1)
        mixed = tl.dot(
            weights.to(values.dtype), values, mixed * kept[:, None], input_precision="ieee"
        )
        largest = highest
    mixed = mixed / summed[:, None]
    place = token[:, None] * (HEADS * HEAD_DIM) + head[:, None] * HEAD_DIM + d[None, :]
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=inside[:, None] & real[None, :])


@torch.library.custom_op("duqsweep::attend", mutates_args=())
def attend(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    """Softmax attention without a mask, within each of several sequences of the same length.

    An operator that torch.compile takes as it is.

    Args:
        qkv: (sequences * tokens, (heads + 2 * kv_heads) * head_dim): queries, keys, values.
        sequences: That follow one another.
        kv_heads: Heads of keys and values; query heads that share one lie side by side.
        head_dim: Channels of a head.

    Returns:
        (sequences * tokens, heads * head_dim).
    """
    tokens = len(qkv) // sequences
    heads = qkv.shape[1] // head_dim - 2 * kv_heads
    group = heads // kv_heads
    out = torch.empty(len(qkv), heads * head_dim, dtype=qkv.dtype, device=qkv.device)
    pdl = overlaps(qkv.device)
    _attend[(triton.cdiv(tokens * group, ROWS), kv_heads, sequences)](
        qkv,
        out,
        tokens,
        head_dim**-0.5 * LOG2_E,
        KEY_TILES=triton.cdiv(tokens, KEYS),
        GROUP=group,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        PADDED=max(triton.next_power_of_2(head_dim), NARROWEST_HEAD),
        ROWS=ROWS,
        KEYS=KEYS,
        PDL=pdl,
        num_warps=4,
        num_stages=2 if head_dim > WIDE_HEAD else 3,  # as many tiles as shared memory holds
        launch_pdl=pdl,
    )
    note("attend")
    return out


@attend.register_fake
def _(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    return qkv.new_empty(len(qkv), qkv.shape[1] - 2 * kv_heads * head_dim)
