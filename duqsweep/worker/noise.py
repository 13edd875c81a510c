"""Where the flow of a policy call starts: noise that depends on the call's identity alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from duqsweep.spec import LedgerEntry


def flow_noise(key: Sequence[int], horizon: int, action_dim: int) -> NDArray[np.float32]:
    """Standard normal noise (horizon, action_dim) that any process draws alike from equal keys."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))
    return generator.standard_normal((horizon, action_dim), dtype=np.float32)


def episode_key(entry: LedgerEntry, call: int) -> tuple[int, ...]:
    """The key of an episode's call: equal for every trial, so that trials are paired."""
    return entry.seed, entry.task, entry.init_state, call
