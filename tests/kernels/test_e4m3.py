"""Rounding to e4m3 against torch's conversion and a slow search among all numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.kernels.e4m3 import LARGEST_E4M3, round_to_e4m3

CODES = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(torch.float8_e4m3fn)
NUMBERS = np.unique(CODES.double()[CODES.float().isfinite()].numpy())


def test_every_bf16_number_is_rounded_as_torch_converts_it() -> None:
    values = (torch.arange(1 << 16, dtype=torch.int32) << 16).view(torch.float32)
    wanted = values.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    for given_values in (values, values.bfloat16()):
        found = round_to_e4m3(given_values)
        assert found.dtype == given_values.dtype
        torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0, equal_nan=True)
    assert round_to_e4m3(torch.tensor([torch.nan])).isnan().all()


@given(st.lists(st.floats(-600, 600), min_size=1, max_size=40))
def test_float64_is_rounded_once_to_the_nearest_number(values: list[float]) -> None:
    exact = np.array(values)
    found = round_to_e4m3(torch.from_numpy(exact)).numpy()
    clamped = exact.clip(-448, 448)
    assert np.isin(found, NUMBERS).all()
    nearest = np.abs(NUMBERS[:, None] - clamped).min(0)
    np.testing.assert_array_equal(np.abs(found - clamped), nearest)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1 + 2**-4 + 2**-40, 1.125),  # float32 would round to a tie, and that down to 1
        (1 + 2**-4, 1.0),
        (1 + 3 * 2**-4, 1.25),
        (463.9, 448.0),
        (1e300, 448.0),
        (-torch.inf, -448.0),
        (2**-9, 2**-9),  # the smallest
        (2**-10, 0.0),
        (2**-10 * 1.01, 2**-9),
        (3 * 2**-10, 2**-8),
        (7.5 * 2**-9, 2**-6),  # from the largest below the normal ones to the smallest of them
        (0.0, 0.0),
    ],
)
def test_ties_saturation_and_numbers_near_zero(value: float, wanted: float) -> None:
    assert round_to_e4m3(torch.tensor([value], dtype=torch.float64)).item() == wanted


def test_the_numbers_themselves_stay_as_they_are() -> None:
    assert NUMBERS.max() == LARGEST_E4M3
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        numbers = torch.from_numpy(NUMBERS).to(dtype)
        assert torch.equal(round_to_e4m3(numbers), numbers)
