"""Attention on the warp groups of Hopper, in parts: launches `cuda/split_attention.cu`.

The language model has so few queries that programs of 128 would not fill the GPU. So each reads
only a part of the keys.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from duqsweep.kernels import nvrtc
from duqsweep.kernels.attention_parts import combine
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import HOPPER
from duqsweep.kernels.unfinished import AttentionParts

HEAD_DIM = 256  # channels; Triton's kernel is as fast for the image encoder's 72
QUERIES = 128  # of a CTA
KEYS = 96  # of a tile
ROW_BYTES = 128  # that TMA copies of a row
THREADS = 384
SWIZZLED_ROWS = 8  # after which TMA's swizzle repeats


def parts_for(tokens: int, group: int, key_heads: int, multiprocessors: int) -> int:
    """How many parts of the keys let most multiprocessors work, without a part that is empty.

    Args:
        tokens: Of a sequence.
        group: Query heads per key head.
        key_heads: Of all sequences.
        multiprocessors: Of the GPU.
    """
    ctas = key_heads * -(-tokens * group // QUERIES)
    tiles = -(-tokens // KEYS)
    most = max(1, min(multiprocessors // ctas, tiles))
    return -(-tiles // -(-tiles // most))


def unsupported_reason(qkv: Tensor, sequences: int, kv_heads: int, head_dim: int) -> str | None:
    """Why Triton's kernel computes this instead; None: this one does.

    Args:
        qkv: See `attention.attend`, as the next three.
        sequences: As there.
        kv_heads: As there.
        head_dim: As there.
    """
    if not qkv.is_cuda or torch.cuda.get_device_capability(qkv.device) != HOPPER:
        return "warp groups are a feature of Hopper"
    if qkv.dtype != torch.bfloat16:
        return f"it reads bfloat16, not {str(qkv.dtype).removeprefix('torch.')}"
    if head_dim != HEAD_DIM:
        return f"heads have {head_dim} channels, not {HEAD_DIM}"
    group = qkv.shape[1] // head_dim // kv_heads - 2
    if QUERIES % (SWIZZLED_ROWS * group):
        return f"{group} query heads per key head do not divide the queries of a CTA"
    if qkv.data_ptr() % 16 or not qkv.is_contiguous():
        return "rows do not start at multiples of 16 bytes"
    tokens = len(qkv) // sequences
    if parts_for(tokens, group, sequences * kv_heads, nvrtc.multiprocessors()) == 1:
        return "Triton's kernel is faster where the keys need not be divided"
    return None


def attend(
    qkv: Tensor,
    sequences: int,
    kv_heads: int,
    head_dim: int,
    factor: float,
    parts: int | None = None,
) -> AttentionParts:
    """See `attention.attend_in_parts`.

    Args:
        qkv: As there, as the next three; without an `unsupported_reason`.
        sequences: As there.
        kv_heads: As there.
        head_dim: As there.
        factor: Of a score, with log2(e).
        parts: Of the keys, at least 2; None: `parts_for`.
    """
    tokens, heads = len(qkv) // sequences, qkv.shape[1] // head_dim - 2 * kv_heads
    group, key_heads = heads // kv_heads, sequences * kv_heads
    parts = parts or parts_for(tokens, group, key_heads, nvrtc.multiprocessors())
    out = torch.empty(len(qkv), heads * head_dim, dtype=qkv.dtype, device=qkv.device)
    values = torch.empty(parts, *out.shape, dtype=torch.float32, device=qkv.device)
    logs = torch.empty(parts, len(qkv), heads, dtype=torch.float32, device=qkv.device)
    constants = {"GROUP": group, "KV_HEADS": kv_heads, "PARTS": parts}
    kernel = nvrtc.build("split_attention", constants, headers={"wgmma.cuh": wgmma_header()})
    in_bytes = qkv.view(torch.uint8)
    arguments = _Arguments(
        nvrtc.row_major_map(in_bytes, QUERIES // group, ROW_BYTES),
        nvrtc.row_major_map(in_bytes, KEYS, ROW_BYTES),
        values.data_ptr(),
        logs.data_ptr(),
        factor,
        tokens,
        sequences,
        -(-tokens // (KEYS * parts)),
    )
    kernel.launch_early(arguments, (-(-tokens * group // QUERIES), key_heads * parts), THREADS)
    note("attend")
    return AttentionParts(
        out=out, parts=values, logs=logs, add_up=lambda: combine(values, logs, out)
    )


def wgmma_header() -> str:
    """The header wgmma.cuh: the instructions for scores and for the result, 64 rows each."""
    scores, out = KEYS // 2, HEAD_DIM // 2  # registers of a lane
    return f"""#pragma once
// d (+)= rows x columnsᵀ, both in shared memory; the sum starts at zero unless `more`.
DEVICE void wgmma_scores(float (&d)[{scores}], u64 rows, u64 columns, bool more) {{
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{scores + 2}, 0;"
                 "  wgmma.mma_async.sync.aligned.m64n{KEYS}k16.f32.bf16.bf16"
                 " {{{_places(0, scores)}}}, %{scores}, %{scores + 1}, p, 1, 1, 0, 0; }}"
                 : {_sums(scores)} : "l"(rows), "l"(columns), "r"((int)more));
}}
// d += weights x values; weights are in registers.
DEVICE void wgmma_out(float (&d)[{out}], const u32 (&a)[4], u64 values) {{
    asm volatile("wgmma.mma_async.sync.aligned.m64n{HEAD_DIM}k16.f32.bf16.bf16"
                 " {{{_places(0, out)}}}, {{{_places(out, 4)}}}, %{out + 4}, 1, 1, 1, 1;"
                 : {_sums(out)} : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(values));
}}
// The compiler may not move accesses to d across this.
template <int N> DEVICE void hold(float (&d)[N]) {{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}}
"""


def _places(first: int, count: int) -> str:
    return ", ".join(f"%{first + i}" for i in range(count))


def _sums(count: int) -> str:
    return ", ".join(f'"+f"(d[{i}])' for i in range(count))


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("queries", ctypes.c_ubyte * 128),
        ("keys", ctypes.c_ubyte * 128),
        ("out", ctypes.c_void_p),
        ("logs", ctypes.c_void_p),
        ("factor", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("tokens", "sequences", "tiles")),
        ("padding", ctypes.c_ubyte * 64),
    )
