"""Euler step: residual stream → velocity → updated actions → stream of the next step."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from duqsweep.kernels.expert.common import adaptive_norm, split_spans, wait_then_launch


@triton.jit
def euler_step_kernel(
    actions,
    stream,
    factor,
    shift,
    out_weight,
    out_bias,
    in_weight,
    in_bias,
    new_actions,
    new_stream,
    tokens,
    length,
    ACTION: tl.constexpr,
    CHANNELS: tl.constexpr,
    FINISH: tl.constexpr,
    START: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCHES: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program: ROWS tokens, COLUMNS channels of the next step's stream.

    FINISH: compute the velocity from `stream` and store the actions, moved by `length` of time, in
    `new_actions`; false for the first step. START: store the stream that these actions give in
    `new_stream`; false after the last step. CHANNELS: ACTION padded to a power of two.
    """
    dtype: tl.constexpr = in_weight.dtype.element_ty
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    a = tl.arange(0, CHANNELS)
    k = tl.arange(0, WIDTH)
    inside = a < ACTION
    real = (m < tokens)[:, None] & inside[None, :]
    if FINISH:
        SPAN: tl.constexpr = WIDTH // BATCHES
        batch = tl.arange(0, BATCHES)[:, None, None]
        span = tl.arange(0, SPAN)[None, :, None]
        place = a[None, None, :] * WIDTH + batch * SPAN + span
        out_tile = tl.load(out_weight + place, mask=inside[None, None, :], other=0.0)
        out_bias_row = tl.load(out_bias + a, mask=inside, other=0.0).to(tl.float32)
        factor_row = tl.load(factor + k).to(tl.float32)
        shift_row = tl.load(shift + k).to(tl.float32)
    if START:
        place = n[None, :] * ACTION + a[:, None]
        in_tile = tl.load(in_weight + place, mask=inside[:, None], other=0.0)
        in_bias_row = tl.load(in_bias + n).to(tl.float32)
    wait_then_launch(PDL)
    place = m[:, None] * ACTION + a[None, :]
    current = tl.load(actions + place, mask=real, other=0.0, cache_modifier=".cg")
    if FINISH:
        normed = adaptive_norm(stream, factor_row, shift_row, m, m < tokens, WIDTH)
        velocity = tl.sum(tl.dot(split_spans(normed, BATCHES), out_tile, input_precision="ieee"), 0)
        current -= (velocity + out_bias_row[None, :]).to(dtype).to(tl.float32) * length
        if tl.program_id(1) == 0:
            tl.store(new_actions + place, current, mask=real)
    if START:
        x = tl.dot(current.to(dtype), in_tile, input_precision="ieee") + in_bias_row[None, :]
        tl.store(new_stream + m[:, None] * WIDTH + n[None, :], x.to(dtype))
