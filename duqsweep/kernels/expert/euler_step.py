"""Stands between two denoising steps: the velocity out of the stream, the actions into it."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert.common import begin, cut, modulated


@triton.jit
def step_kernel(
    actions,
    stream,
    factor,
    shift,
    out_weight,
    out_bias,
    in_weight,
    in_bias,
    following,
    entered,
    tokens,
    length,
    ACTION: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEAVE: tl.constexpr,
    ENTER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: ROWS tokens by COLUMNS channels of the next step's stream.

    LEAVE: there is a stream to leave, and `following` takes the actions after `length` of time.
    ENTER: `entered` takes the stream that those actions give. CHANNELS: ACTION padded to a power of
    two.
    """
    dtype: tl.constexpr = in_weight.dtype.element_ty
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    a = tl.arange(0, CHANNELS)
    k = tl.arange(0, WIDTH)
    inside = a < ACTION
    real = (m < tokens)[:, None] & inside[None, :]
    if LEAVE:
        SPAN: tl.constexpr = WIDTH // BATCHES
        batch = tl.arange(0, BATCHES)[:, None, None]
        span = tl.arange(0, SPAN)[None, :, None]
        place = a[None, None, :] * WIDTH + batch * SPAN + span
        leaving = tl.load(out_weight + place, mask=inside[None, None, :], other=0.0)
        leaving_bias = tl.load(out_bias + a, mask=inside, other=0.0).to(tl.float32)
        factor_row = tl.load(factor + k).to(tl.float32)
        shift_row = tl.load(shift + k).to(tl.float32)
    if ENTER:
        place = n[None, :] * ACTION + a[:, None]
        entering = tl.load(in_weight + place, mask=inside[:, None], other=0.0)
        entering_bias = tl.load(in_bias + n).to(tl.float32)
    begin(PDL)
    place = m[:, None] * ACTION + a[None, :]
    flow = tl.load(actions + place, mask=real, other=0.0, cache_modifier=".cg")
    if LEAVE:
        normed = modulated(stream, factor_row, shift_row, m, m < tokens, WIDTH)
        velocity = tl.sum(tl.dot(cut(normed, BATCHES), leaving, input_precision="ieee"), 0)
        flow -= (velocity + leaving_bias[None, :]).to(dtype).to(tl.float32) * length
        if tl.program_id(1) == 0:
            tl.store(following + place, flow, mask=real)
    if ENTER:
        x = tl.dot(flow.to(dtype), entering, input_precision="ieee") + entering_bias[None, :]
        tl.store(entered + m[:, None] * WIDTH + n[None, :], x.to(dtype))
