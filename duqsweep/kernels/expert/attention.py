"""Attention of the action tokens over the prefix and themselves, split along the keys."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert.common import wait_then_launch


@triton.jit(do_not_specialize=["prefix"])  # multiples of 16 would be compiled again
def attention_kernel(
    queries,
    prefix_keys,
    prefix_values,
    keys,
    values,
    partial,
    maxima,
    sums,
    prefix,
    tokens,
    padded,
    pairs,
    key_head,
    key_token,
    value_head,
    value_token,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: ROWS (token, head of the group) pairs, CHUNK keys, COLUMNS channels of the values.

    Grid: (chunks, tiles of pairs, kv_heads * column tiles). Stores the chunk's weighted values
    without dividing by the sum of the weights, its largest score (`maxima`), and that sum.
    CHUNKS and pairs: sizes of the buffers, in chunks and in pairs per chunk.
    """
    PARTS: tl.constexpr = HEAD_DIM // COLUMNS
    dtype: tl.constexpr = queries.dtype.element_ty
    kv_head, part = tl.program_id(2) // PARTS, tl.program_id(2) % PARTS
    d = tl.arange(0, HEAD_DIM)
    c = part * COLUMNS + tl.arange(0, COLUMNS)
    position = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    in_prefix = (position < prefix)[:, None]
    place = position[:, None]
    prefix_k = tl.load(
        prefix_keys + kv_head * key_head + place * key_token + d[None, :], mask=in_prefix, other=0.0
    )
    prefix_v = tl.load(
        prefix_values + kv_head * value_head + place * value_token + c[None, :],
        mask=in_prefix,
        other=0.0,
    )
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = (row // GROUP < tokens)[:, None]
    source = (row // GROUP * (KV_HEADS * GROUP) + kv_head * GROUP + row % GROUP)[:, None]
    wait_then_launch(PDL)
    q = tl.load(
        queries + source * HEAD_DIM + d[None, :], mask=inside, other=0.0, cache_modifier=".cg"
    )
    own = ((position >= prefix) & (position < prefix + tokens))[:, None]
    place = (kv_head * padded + position - prefix)[:, None] * HEAD_DIM
    own_k = tl.load(keys + place + d[None, :], mask=own, other=0.0, cache_modifier=".cg")
    own_v = tl.load(values + place + c[None, :], mask=own, other=0.0, cache_modifier=".cg")
    k, v = tl.where(in_prefix, prefix_k, own_k), tl.where(in_prefix, prefix_v, own_v)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (1.0 / tl.sqrt(HEAD_DIM * 1.0))
    scores = tl.where((position < prefix + tokens)[None, :], scores, float("-inf"))
    maximum = tl.max(scores, 1)
    weights = tl.exp(scores - maximum[:, None])
    weighted = tl.dot(weights.to(dtype), v, input_precision="ieee")
    here = (kv_head * CHUNKS + tl.program_id(0)) * pairs + row
    tl.store(partial + here[:, None] * HEAD_DIM + c[None, :], weighted, mask=inside)
    if part == 0:
        real = row // GROUP < tokens
        tl.store(maxima + here, maximum, mask=real)
        tl.store(sums + here, tl.sum(weights, 1), mask=real)
