"""Adds up attention's results for parts of the keys."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from duqsweep.kernels.early_launch import launch_then_wait
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import overlaps


@triton.jit(do_not_specialize=["tokens"])  # multiples of 16 would be compiled again
def _combine(
    values,
    logs,
    out,
    tokens,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    MORE_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program: one token. MORE_HEADS, PADDED: powers of two."""
    launch_then_wait(PDL)
    token = tl.program_id(0).to(tl.int64)
    head, d = tl.arange(0, MORE_HEADS), tl.arange(0, PADDED)
    real = head < HEADS
    inside = real[:, None] & (d < HEAD_DIM)[None, :]
    place = head[:, None] * HEAD_DIM + d[None, :]
    top = tl.full((MORE_HEADS,), -float("inf"), tl.float32)
    for part in tl.static_range(PARTS):
        log = tl.load(logs + (part * tokens + token) * HEADS + head, mask=real, other=0.0)
        top = tl.maximum(top, log)
    total = tl.zeros((MORE_HEADS, PADDED), tl.float32)
    weights = tl.zeros((MORE_HEADS,), tl.float32)
    for part in tl.static_range(PARTS):
        log = tl.load(logs + (part * tokens + token) * HEADS + head, mask=real, other=0.0)
        weight = tl.exp2(log - top)
        weights += weight
        row = values + (part * tokens + token) * (HEADS * HEAD_DIM)
        total += weight[:, None] * tl.load(row + place, mask=inside, other=0.0)
    total = total / weights[:, None]
    tl.store(out + token * (HEADS * HEAD_DIM) + place, total.to(out.dtype.element_ty), mask=inside)


def combine(values: Tensor, logs: Tensor, out: Tensor) -> None:
    """Fill `out`; see `unfinished.AttentionParts`."""
    parts, tokens, heads = logs.shape
    head_dim = out.shape[1] // heads
    pdl = overlaps(out.device)
    _combine[(tokens,)](
        values,
        logs,
        out,
        tokens,
        PARTS=parts,
        HEADS=heads,
        MORE_HEADS=triton.next_power_of_2(heads),
        HEAD_DIM=head_dim,
        PADDED=triton.next_power_of_2(head_dim),
        PDL=pdl,
        num_warps=4,
        launch_pdl=pdl,
    )
    note("attend_combine")
