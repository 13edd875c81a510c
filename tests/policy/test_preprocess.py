"""Conversion of state, words and actions for the embedded policy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.checkpoint.embedded_config import EmbeddedConfig
from duqsweep.checkpoint.sizes import sizes_of
from duqsweep.errors import EvaluationError, SpecError
from duqsweep.policy.preprocess import (
    denormalise_actions,
    state_tokens,
    state_vector,
    text_tokens,
)

CONFIG = EmbeddedConfig(
    sizes=sizes_of("embedded"),
    words=("", "cube", "pick", "red", "the", "up"),
    text_tokens=6,
    state_low=(-1.0,) * 11,
    state_high=(1.0,) * 11,
    action_mean=(0.5,) * 7,
    action_std=(0.1,) * 7,
)
number = st.floats(-1, 1).map(lambda value: round(value, 6))


@given(st.lists(number, min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_the_state_holds_the_first_two_columns_of_the_rotation(quat: list[float]) -> None:
    q = np.array(quat) / np.linalg.norm(quat)
    state = state_vector(np.zeros(3), q, np.zeros(2))
    for column, axis in ((state[3:6], np.eye(3)[0]), (state[6:9], np.eye(3)[1])):
        # v + 2 w (u × v) + 2 u × (u × v): a quaternion's turn without its matrix
        cross = np.cross(q[:3], axis)
        np.testing.assert_allclose(
            column, axis + 2 * q[3] * cross + 2 * np.cross(q[:3], cross), atol=1e-9
        )


@given(st.lists(st.floats(-3, 3), min_size=11, max_size=11))
def test_each_state_value_has_bins_of_its_own(values: list[float]) -> None:
    tokens = state_tokens(np.array(values), CONFIG)
    bins = tokens - CONFIG.first_bin
    assert (bins // 256).tolist() == list(range(11))
    centres = (bins % 256 + 0.5) / 128 - 1
    assert np.abs(centres - np.clip(values, -1, 1)).max() <= 0.5 / 128 + 1e-9
    assert tokens.max() < CONFIG.sizes.vocabulary


def test_an_instruction_is_filled_up_with_padding() -> None:
    assert text_tokens("Pick up the cube", CONFIG).tolist() == [2, 5, 4, 1, 0, 0]


def test_an_unknown_word_is_named_with_those_that_are_known() -> None:
    with pytest.raises(EvaluationError, match=r"'plate'.*cube, pick, red, the, up"):
        text_tokens("pick up the plate", CONFIG)


def test_an_instruction_that_is_too_long_is_refused() -> None:
    with pytest.raises(EvaluationError, match="reads 6 words"):
        text_tokens("pick up the red cube up up", CONFIG)


def test_actions_are_scaled_back_and_clipped() -> None:
    actions = np.zeros((2, 7), dtype=np.float32)
    actions[1] = 100
    np.testing.assert_allclose(denormalise_actions(actions, CONFIG), [[0.5] * 7, [1.0] * 7])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"state_low": (0.0,)}, "state_low"),
        ({"action_std": (0.0,) * 7}, "positive"),
        ({"action_mean": (0.0,)}, "action_mean"),
        ({"text_tokens": 30}, "text_tokens"),
        ({"words": tuple(f"w{i}" for i in range(70))}, "vocabulary"),
    ],
)
def test_an_impossible_configuration_is_refused(change: dict[str, object], rule: str) -> None:
    with pytest.raises(SpecError, match=rule):
        dataclasses.replace(CONFIG, **change)
