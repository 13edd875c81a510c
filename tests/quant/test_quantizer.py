"""Rounding: error bounds, slow references, and more bits are never worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from duqsweep.kernels.projection_weights import largest_code
from duqsweep.quant.quantizer import (
    CLIPS,
    decode_weight,
    quantize_tokens,
    weight_codes,
    weight_scales,
)

BITS = st.integers(2, 8)
ROWS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=24),
    elements=st.floats(-1e3, 1e3, allow_subnormal=False),
)
NORMAL = torch.randn(16, 256, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def rounded(weight: torch.Tensor, bits: int, how: str, group: int = 0) -> torch.Tensor:
    scales = weight_scales(weight, bits, how, group)
    return decode_weight(weight_codes(weight, scales, bits), scales)


@given(values=ROWS, bits=BITS)
def test_absmax_rounds_each_weight_by_at_most_half_a_step(values: np.ndarray, bits: int) -> None:
    weight = torch.from_numpy(values)
    scales = weight_scales(weight, bits, "absmax", 0)
    codes = weight_codes(weight, scales, bits)
    assert codes.abs().max() <= largest_code(bits)
    error = (decode_weight(codes, scales) - weight).abs()
    assert (error <= scales / 2 * (1 + 1e-9)).all()


@given(values=ROWS, bits=BITS)
def test_tokens_are_rounded_by_at_most_half_a_step(values: np.ndarray, bits: int) -> None:
    step = np.abs(values).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    error = np.abs(quantize_tokens(torch.from_numpy(values), bits).numpy() - values)
    assert (error <= step / 2 * (1 + 1e-9) + 1e-8).all()


@given(values=ROWS, bits=BITS)
def test_mse_scales_are_never_worse_than_absmax(values: np.ndarray, bits: int) -> None:
    weight = torch.from_numpy(values)
    errors = [(rounded(weight, bits, how) - weight).square().sum(1) for how in ("mse", "absmax")]
    assert (errors[0] <= errors[1] * (1 + 1e-9)).all()


@pytest.mark.parametrize("group", [0, 32])
@pytest.mark.parametrize("how", ["mse", "absmax"])
def test_e4m3_rounds_by_at_most_a_sixteenth_or_half_the_smallest_number(
    how: str, group: int
) -> None:
    weight = NORMAL.clone()
    weight[0] = 0
    weight[1, 5:] *= 1e-5
    scales = weight_scales(weight, 8, how, group, "e4m3")  # type: ignore[arg-type]
    codes = weight_codes(weight, scales, 8, "e4m3")
    assert codes.dtype == torch.float8_e4m3fn
    error = (decode_weight(codes, scales) - weight).abs()
    each = scales.repeat_interleave(weight.shape[1] // scales.shape[1], dim=1)
    # A scale of least squared error may saturate the largest.
    inside = weight.abs() <= 448 * each * (1 + 1e-9)
    assert inside.all() or how == "mse"
    bound = torch.maximum(weight.abs() / 16, each * 2.0**-10) * (1 + 1e-9)
    assert (error <= bound)[inside].all()
    assert not codes[0].float().any()


@given(values=ROWS)
def test_mse_scales_of_e4m3_are_never_worse_than_absmax(values: np.ndarray) -> None:
    weight = torch.from_numpy(values)
    errors = []
    for how in ("mse", "absmax"):
        scales = weight_scales(weight, 8, how, 0, "e4m3")  # type: ignore[arg-type]
        found = decode_weight(weight_codes(weight, scales, 8, "e4m3"), scales)
        errors.append((found - weight).square().sum(1))
    assert (errors[0] <= errors[1] * (1 + 1e-9)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tokens_of_e4m3_keep_their_dtype_and_zeros(dtype: torch.dtype) -> None:
    rows = NORMAL.to(dtype)
    rows[0] = 0
    found = quantize_tokens(rows, 8, "e4m3")
    assert found.dtype == dtype
    assert torch.equal(found[0], rows[0])
    near = rows.abs().double() / 16 + rows.abs().double().amax(1, keepdim=True) / 448 * 2.0**-10
    assert ((found - rows).abs().double() <= near * 1.07).all()  # bf16 rounds the result as well
    assert (found - rows).norm() >= 0.01 * rows.norm()


@given(values=ROWS, bits=st.integers(4, 8))
def test_mse_scales_equal_a_slow_search(values: np.ndarray, bits: int) -> None:
    top = 2 ** (bits - 1) - 1
    expected = []
    for row in values:
        base = max(np.abs(row).max() / top, 1e-12)
        candidates = [base / clip for clip in CLIPS]
        errors = [
            np.mean((np.clip(np.rint(row / s), -top - 1, top) * s - row) ** 2) for s in candidates
        ]
        expected.append(candidates[int(np.argmin(errors))])
    found = weight_scales(torch.from_numpy(values), bits, "mse", 0)
    error = [
        [np.mean((np.clip(np.rint(row / s), -top - 1, top) * s - row) ** 2) for s in scales]
        for row, *scales in zip(values, found[:, 0].tolist(), expected, strict=True)
    ]
    np.testing.assert_allclose(*np.transpose(error), atol=1e-18)


@pytest.mark.parametrize("how", ["mse", "absmax"])
def test_more_bits_are_never_worse(how: str) -> None:
    errors = [(rounded(NORMAL, bits, how) - NORMAL).square().mean() for bits in range(2, 9)]
    assert errors == sorted(errors, reverse=True)
    errors = [(quantize_tokens(NORMAL, bits) - NORMAL).square().mean() for bits in range(2, 9)]
    assert errors == sorted(errors, reverse=True)


def test_eight_bits_are_close_to_exact() -> None:
    for approximate in (rounded(NORMAL, 8, "mse"), quantize_tokens(NORMAL, 8)):
        assert (approximate - NORMAL).norm() < 0.01 * NORMAL.norm()


def test_two_bits_get_within_a_tenth_of_the_best_clip() -> None:
    best = min(
        (torch.round(NORMAL / step).clamp(-2, 1) * step - NORMAL).square().mean()
        for step in torch.linspace(0.3, 3.0, 271).tolist()
    )
    assert (rounded(NORMAL, 2, "mse") - NORMAL).square().mean() < 1.1 * best


def test_groups_have_scales_of_their_own() -> None:
    weight = NORMAL * torch.where(torch.arange(256) < 64, 100.0, 1.0)
    scales = weight_scales(weight, 4, "mse", 64)
    assert scales.shape == (16, 4)
    for group in range(4):
        part = slice(64 * group, 64 * group + 64)
        assert torch.equal(scales[:, [group]], weight_scales(weight[:, part], 4, "mse", 0))
    small = slice(64, 256)
    whole, grouped = rounded(weight, 4, "mse"), rounded(weight, 4, "mse", 64)
    assert (whole[:, small] == 0).all()
    assert (grouped - weight)[:, small].norm() < 0.15 * weight[:, small].norm()


def test_zeros_stay_zeros() -> None:
    zeros = torch.zeros(3, 32)
    assert torch.equal(quantize_tokens(zeros, 8), zeros)
    assert torch.equal(quantize_tokens(zeros.bfloat16(), 4), zeros.bfloat16())
    assert torch.equal(rounded(zeros, 4, "mse"), zeros)
