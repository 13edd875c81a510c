"""The actions of episodes are read back exactly, and damage is found."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from duqsweep import files
from duqsweep.errors import EvaluationError
from duqsweep.worker.actions import RecordedActions, append_actions

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(0, 40).flatmap(lambda n: arrays(np.float64, (n, 7), elements=FINITE)))
def test_every_bit_of_an_action_comes_back(tmp_path_factory, actions):
    folder = tmp_path_factory.mktemp("trial")
    append_actions(folder, 3, 0, actions)
    read = RecordedActions(folder).of(3, 0)
    assert read.shape == actions.shape
    assert read.tobytes() == actions.tobytes()


def test_the_later_of_two_lines_counts(tmp_path):
    for value in (0.0, 1.0):
        append_actions(tmp_path, 0, 0, np.full((2, 7), value))
    append_actions(tmp_path, 0, 1, np.full((2, 7), 5.0))
    assert RecordedActions(tmp_path).of(0, 0).tolist() == [[1.0] * 7] * 2


def test_an_episode_without_actions_is_named(tmp_path):
    append_actions(tmp_path, 0, 0, np.zeros((1, 7)))
    with pytest.raises(EvaluationError, match=r"actions\.jsonl does not hold .* episode 4"):
        RecordedActions(tmp_path).of(4, 0)


@pytest.mark.parametrize("text", ["!", "AAAA", "eJwDAAAAAAE="])
def test_damaged_actions_are_refused(tmp_path, text):
    line = {"i": 0, "attempt": 0, "actions": text}
    (tmp_path / files.ACTIONS_JSONL).write_text(json.dumps(line) + "\n")
    if text == "eJwDAAAAAAE=":  # no bytes: no action
        assert RecordedActions(tmp_path).of(0, 0).shape == (0, 7)
        return
    with pytest.raises(EvaluationError, match="episode 0 are damaged"):
        RecordedActions(tmp_path).of(0, 0)
