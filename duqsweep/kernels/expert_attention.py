"""Attention of the expert's tokens over the prefix and themselves, cut along the keys.

Each program takes a chunk of keys; the last one to finish of those that share an output combines
their results, in the order of the chunks, so that repeated runs agree to the bit.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert_parts import begin


@triton.jit
def attention_kernel(
    queries,
    prefix_keys,
    prefix_values,
    keys,
    values,
    out,
    inverse,
    partial,
    peaks,
    sums,
    arrivals,
    prefix,
    tokens,
    padded,
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
    ORDERED: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: ROWS pairs (token, head of the group), CHUNK keys, COLUMNS channels of the values.

    Grid: (chunks, tiles of rows, kv_heads * column tiles); CHUNKS: a bound on chunks, power of two.
    """
    HEADS: tl.constexpr = KV_HEADS * GROUP
    PARTS: tl.constexpr = HEAD_DIM // COLUMNS
    dtype: tl.constexpr = queries.dtype.element_ty
    chunk, chunks = tl.program_id(0), tl.num_programs(0)
    kv_head = tl.program_id(2) // PARTS
    d = tl.arange(0, HEAD_DIM)
    c = (tl.program_id(2) % PARTS) * COLUMNS + tl.arange(0, COLUMNS)
    position = chunk * CHUNK + tl.arange(0, CHUNK)
    early = (position < prefix)[:, None]
    place = position[:, None]
    early_k = tl.load(
        prefix_keys + kv_head * key_head + place * key_token + d[None, :], mask=early, other=0.0
    )
    early_v = tl.load(
        prefix_values + kv_head * value_head + place * value_token + c[None, :],
        mask=early,
        other=0.0,
    )
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    head = kv_head * GROUP + row % GROUP
    inside = (row // GROUP < tokens)[:, None]
    begin(PDL)
    source = (row // GROUP * HEADS + head)[:, None] * HEAD_DIM + d[None, :]
    q = tl.load(queries + source, mask=inside, other=0.0)
    own = ((position >= prefix) & (position < prefix + tokens))[:, None]
    place = (kv_head * padded + position - prefix)[:, None] * HEAD_DIM
    own_k = tl.load(keys + place + d[None, :], mask=own, other=0.0)
    own_v = tl.load(values + place + c[None, :], mask=own, other=0.0)
    k, v = tl.where(early, early_k, own_k), tl.where(early, early_v, own_v)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (1.0 / tl.sqrt(HEAD_DIM * 1.0))
    scores = tl.where((position < prefix + tokens)[None, :], scores, float("-inf"))
    peak = tl.max(scores, 1)
    weights = tl.exp(scores - peak[:, None])
    mixed = tl.dot(weights.to(dtype), v, input_precision="ieee")
    group = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    r, j = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    here = (group * CHUNKS + chunk) * ROWS + r
    tl.store(partial + here[:, None] * COLUMNS + j[None, :], mixed)
    tl.store(peaks + here, peak)
    tl.store(sums + here, tl.sum(weights, 1))
    tl.debug_barrier()  # the whole program's stores come before its arrival
    arrived = tl.atomic_add(arrivals + group, 1, sem="acq_rel")
    if arrived == chunks - 1:
        s = tl.arange(0, CHUNKS)
        there = group * CHUNKS * ROWS + s[:, None] * ROWS + r[None, :]
        written = (s < chunks)[:, None]
        # Past the first-level cache: other multiprocessors wrote these.
        peak_s = tl.load(peaks + there, mask=written, other=float("-inf"), cache_modifier=".cg")
        sum_s = tl.load(sums + there, mask=written, other=0.0, cache_modifier=".cg")
        parts = tl.load(
            partial + there[:, :, None] * COLUMNS + j[None, None, :],
            mask=written[:, :, None],
            other=0.0,
            cache_modifier=".cg",
        )
        share = tl.exp(peak_s - tl.max(peak_s, 0)[None, :])
        share = share / tl.sum(share * sum_s, 0)[None, :]
        total = tl.sum(parts * share[:, :, None], 0)
        channel = head[:, None] * HEAD_DIM + c[None, :]
        if ORDERED:
            channel = tl.load(inverse + channel)
        target = out + (row // GROUP)[:, None] * (HEADS * HEAD_DIM) + channel
        tl.store(target, total.to(dtype), mask=inside)
        tl.store(arrivals + group, 0)
