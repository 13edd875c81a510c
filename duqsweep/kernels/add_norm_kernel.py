"""The Triton kernel of `add_norm`."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from duqsweep.kernels.early_launch import wait_for_previous_kernel
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import overlaps
from duqsweep.kernels.norms import NORM_EPS


@triton.jit
def _add_norm(
    x,
    added,
    norm_weight,
    norm_bias,
    total,
    normed,
    eps,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    LAYER_NORM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program: one token."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    channel = tl.arange(0, PADDED)
    inside = channel < WIDTH
    weight = tl.load(norm_weight + channel, mask=inside, other=0.0)
    if LAYER_NORM:
        shift = tl.load(norm_bias + channel, mask=inside, other=0.0)
    if PDL:  # by now, everything that does not depend on the previous kernel is loaded
        wait_for_previous_kernel()
    place = tl.program_id(0).to(tl.int64) * WIDTH + channel
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(added + place, mask=inside, other=0.0).to(tl.float32)
    rounded = values.to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=inside)
    values = rounded.to(tl.float32)
    if LAYER_NORM:
        values = tl.where(inside, values - tl.sum(values, 0) / WIDTH, 0.0)
    variance = tl.sum(values * values, 0) / WIDTH
    values = values * tl.rsqrt(variance + eps) * weight
    if LAYER_NORM:
        values += shift
    tl.store(normed + place, values.to(normed.dtype.element_ty), mask=inside)


def launch(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `add_norm`."""
    tokens, width = x.shape
    total, normed = torch.empty_like(x), torch.empty_like(x)
    unused: Any = x
    pdl = overlaps(x.device)
    _add_norm[(tokens,)](
        x,
        added,
        weight,
        unused if bias is None else bias,
        total,
        normed,
        NORM_EPS,
        WIDTH=width,
        PADDED=triton.next_power_of_2(width),
        LAYER_NORM=bias is not None,
        PDL=pdl,
        num_warps=4,
        launch_pdl=pdl,
    )
    note("add_norm")
    return total, normed
