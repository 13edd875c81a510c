"""States and actions are scaled by the formulas of openpi and LeRobot, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.checkpoint.normalise import Affine, lerobot_affine, openpi_affine
from duqsweep.errors import ConfigError, SpecError

number = st.floats(-50, 50)
spread = st.one_of(st.just(0.0), st.floats(1e-3, 50))


def stats(**values: float) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in values.items()}


@given(number, spread, number)
def test_openpi_maps_its_quantiles_to_one(q01: float, width: float, x: float) -> None:
    affine = openpi_affine(stats(q01=q01, q99=q01 + width), 1, quantiles=True)
    range_ = (q01 + width) - q01 + 1e-6
    expected = (x - q01) / range_ * 2.0 - 1.0
    np.testing.assert_allclose(affine.normalise(np.array([x])), expected, rtol=1e-9, atol=1e-7)
    back = (x + 1.0) / 2.0 * range_ + q01
    np.testing.assert_allclose(affine.denormalise(np.array([x])), back, rtol=1e-9, atol=1e-9)


@given(number, spread, number)
def test_openpi_divides_by_the_deviation(mean: float, std: float, x: float) -> None:
    affine = openpi_affine(stats(mean=mean, std=std), 1, quantiles=False)
    np.testing.assert_allclose(affine.normalise(np.array([x])), (x - mean) / (std + 1e-6))
    np.testing.assert_allclose(affine.denormalise(np.array([x])), x * (std + 1e-6) + mean)


@given(number, spread, number)
def test_lerobot_maps_its_quantiles_to_one(q01: float, width: float, x: float) -> None:
    q99 = q01 + width
    range_ = q99 - q01 if q99 != q01 else 1e-8
    for inverse in (False, True):
        affine = lerobot_affine(stats(q01=q01, q99=q99), 1, "QUANTILES", 1e-8, inverse)
        expected = 2.0 * (x - q01) / range_ - 1.0
        np.testing.assert_allclose(affine.normalise(np.array([x])), expected, rtol=1e-6, atol=1e-6)
        back = (x + 1.0) * range_ / 2.0 + q01
        np.testing.assert_allclose(affine.denormalise(np.array([x])), back, rtol=1e-9, atol=1e-9)


@given(number, spread, number)
def test_lerobot_adds_its_epsilon_on_the_way_in_alone(mean: float, std: float, x: float) -> None:
    held = stats(mean=mean, std=std)
    state = lerobot_affine(held, 1, "MEAN_STD", 1e-8, inverse=False)
    np.testing.assert_allclose(state.normalise(np.array([x])), (x - mean) / (std + 1e-8))
    actions = lerobot_affine(held, 1, "MEAN_STD", 1e-8, inverse=True)
    np.testing.assert_allclose(actions.denormalise(np.array([x])), x * std + mean)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="QUANTILES or MEAN_STD, got 'MIN_MAX'"):
        lerobot_affine(stats(min=0, max=1), 1, "MIN_MAX", 1e-8, inverse=False)


@pytest.mark.parametrize("spread", [-1.0, float("nan")])
def test_an_impossible_spread_is_refused(spread: float) -> None:
    with pytest.raises(SpecError, match="no negative spread"):
        Affine((0.0,), (spread,))
