"""Self-attention without a mask, from a merged product of queries, keys and values."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from duqsweep.kernels import nvrtc, split_attention
from duqsweep.kernels.early_launch import launch_then_wait
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import overlaps
from duqsweep.kernels.torch_operator import fake_of, operator
from duqsweep.kernels.unfinished import Rows

LOG2_E = 1.4426950408889634
ROWS = 64  # queries per program
KEYS = 64  # keys per step
ALL_KEYS = 256  # in one step, if the sequence is no longer and every program has a multiprocessor
WIDE_HEAD = 128  # channels
MIN_HEAD = 16  # the fewest channels of a product on tensor cores


@triton.jit(do_not_specialize=["tokens"])  # multiples of 16 would be compiled again
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
    """One program: ROWS (token, head of the group) pairs of one key head in one sequence."""
    launch_then_wait(PDL)
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
    maximum = tl.full((ROWS,), -float("inf"), tl.float32)
    sums = tl.zeros((ROWS,), tl.float32)
    weighted = tl.zeros((ROWS, PADDED), tl.float32)
    for tile in range(KEY_TILES):
        other = tile * KEYS + tl.arange(0, KEYS)
        valid = other < tokens
        offset = (first + other)[:, None] * WIDTH + d[None, :]
        mask = valid[:, None] & real[None, :]
        keys = tl.load(key + offset, mask=mask, other=0.0)
        values = tl.load(value + offset, mask=mask, other=0.0)
        scores = tl.dot(query, keys.T, input_precision="ieee") * factor
        scores = tl.where(valid[None, :], scores, -float("inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, 1))
        weights = tl.exp2(scores - new_maximum[:, None])
        rescale = tl.exp2(maximum - new_maximum)
        sums = sums * rescale + tl.sum(weights, 1)
        weighted = tl.dot(
            weights.to(values.dtype), values, weighted * rescale[:, None], input_precision="ieee"
        )
        maximum = new_maximum
    weighted = weighted / sums[:, None]
    place = token[:, None] * (HEADS * HEAD_DIM) + head[:, None] * HEAD_DIM + d[None, :]
    tl.store(out + place, weighted.to(out.dtype.element_ty), mask=inside[:, None] & real[None, :])


@operator
def attend(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    """Softmax attention without a mask, within each of several sequences of the same length.

    A custom operator, which torch.compile does not trace into.

    Args:
        qkv: (sequences * tokens, (heads + 2 * kv_heads) * head_dim): queries, keys, values.
        sequences: Number of sequences in `qkv`, one after the other.
        kv_heads: Heads of keys and values; query heads that share one are adjacent.
        head_dim: Channels per head.

    Returns:
        (sequences * tokens, heads * head_dim).
    """
    tokens = len(qkv) // sequences
    heads = qkv.shape[1] // head_dim - 2 * kv_heads
    group = heads // kv_heads
    out = torch.empty(len(qkv), heads * head_dim, dtype=qkv.dtype, device=qkv.device)
    pdl = overlaps(qkv.device)
    grid = (triton.cdiv(tokens * group, ROWS), kv_heads, sequences)
    at_once = pdl and qkv.dtype == torch.bfloat16 and head_dim <= WIDE_HEAD
    at_once = at_once and ALL_KEYS // 2 < tokens <= ALL_KEYS
    at_once = at_once and math.prod(grid) <= nvrtc.multiprocessors()
    keys = ALL_KEYS if at_once else KEYS
    # As many stages as fit into shared memory.
    stages = 1 if at_once else 2 if head_dim > WIDE_HEAD else 3
    _attend[grid](
        qkv,
        out,
        tokens,
        head_dim**-0.5 * LOG2_E,
        KEY_TILES=triton.cdiv(tokens, keys),
        GROUP=group,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        PADDED=max(triton.next_power_of_2(head_dim), MIN_HEAD),
        ROWS=ROWS,
        KEYS=keys,
        PDL=pdl,
        num_warps=4,
        num_stages=stages,
        launch_pdl=pdl,
    )
    note("attend")
    return out


@fake_of(attend)
def _(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Tensor:
    return qkv.new_empty(len(qkv), qkv.shape[1] - 2 * kv_heads * head_dim)


def attend_in_parts(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> Rows:
    """`attend`, whose result may be in parts, for a kernel that adds them up."""
    if split_attention.unsupported_reason(qkv, sequences, kv_heads, head_dim) is None:
        factor = head_dim**-0.5 * LOG2_E
        return split_attention.attend(qkv, sequences, kv_heads, head_dim, factor)
    whole: Tensor = attend(qkv, sequences, kv_heads, head_dim)
    return whole
