"""Flow noise: the same for every process, another for every call."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.spec import LedgerEntry
from duqsweep.worker.noise import episode_key, flow_noise

NUMBERS = st.integers(0, 2**31)


def entry(task: int, state: int, seed: int = 7, i: int = 0) -> LedgerEntry:
    return LedgerEntry(i=i, suite="duq_mini", task=task, init_state=state, seed=seed)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_equal_keys_give_equal_noise(seed: int, task: int, state: int, call: int) -> None:
    key = episode_key(entry(task, state, seed), call)
    assert np.array_equal(flow_noise(key, 10, 7), flow_noise(key, 10, 7))


def test_noise_does_not_depend_on_the_position_in_the_ledger() -> None:
    assert episode_key(entry(1, 2, i=3), 4) == episode_key(entry(1, 2, i=30), 4)


def test_every_call_of_every_episode_has_its_own_noise() -> None:
    keys = [episode_key(entry(t, s), c) for t in range(4) for s in range(5) for c in range(6)]
    assert len({flow_noise(key, 2, 3).tobytes() for key in keys}) == len(keys)


def test_noise_is_standard_normal_single_precision() -> None:
    noise = flow_noise((7, 0), 1000, 32)
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
