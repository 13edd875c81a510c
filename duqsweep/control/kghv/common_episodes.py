"""What common episodes say: some are easy for all trials, and trials have played different ones.

All trials play the same ledger from its start. So the luck of its first episodes is shared: a trial
that has played only those looks better than it is where they are easy. How easy they are is learnt
from the trials that played on, each compared with itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duqsweep.control.kghv.angles import rate_sd

Floats = NDArray[np.float64]
Counts = tuple[tuple[int, int], ...]  # successes and episodes in each block of the ledger

BLOCK = 20  # episodes of the ledger that are looked at together
# Share of an outcome's variance that belongs to the episode: the correlation of two policies'
# outcomes on it.
SHARED = 0.15


def counts_by_block(outcomes: Sequence[tuple[int, bool]]) -> Counts:
    """From places in the ledger and whether the episode succeeded."""
    blocks = 1 + max((place for place, _ in outcomes), default=-1) // BLOCK
    found = [[0, 0] for _ in range(blocks)]
    for place, success in outcomes:
        found[place // BLOCK][0] += success
        found[place // BLOCK][1] += 1
    return tuple((won, played) for won, played in found)


@dataclass(frozen=True)
class CommonLuck:
    """By how much each trial's angle is too high, because its episodes were easy: a normal."""

    means: Floats  # (n,)
    covariances: Floats  # (n, n)


def common_luck(trials: Sequence[Counts], angles: Floats) -> CommonLuck:
    """The luck of trials, given how each did in different blocks.

    Args:
        trials: Counts of each; none for one whose episodes are its own.
        angles: Of the trials' rates (n,).
    """
    blocks = max(map(len, trials), default=0)
    won, played = np.zeros((2, len(trials), blocks))
    for row, counts in enumerate(trials):
        if counts:
            won[row, : len(counts)], played[row, : len(counts)] = np.array(counts).T
    total = np.maximum(played.sum(axis=1, keepdims=True), 1.0)
    # How much better than by itself a trial did in each block; an angle's variance is 1/4.
    better = won - played * won.sum(axis=1, keepdims=True) / total
    better /= rate_sd(angles, np.ones(len(angles)))[:, None]
    # A trial's own level is unknown: only the differences between its blocks count.
    shares = played / total
    precision = 4 / (1 - SHARED) * (np.diag(played.sum(axis=0)) - played.T @ shares)
    prior = np.diag(4 / SHARED * np.maximum(played.max(axis=0, initial=0.0), 1.0))
    covariance = np.linalg.inv(precision + prior)
    means = covariance @ (4 / (1 - SHARED) * better.sum(axis=0))
    return CommonLuck(shares @ means, shares @ covariance @ shares.T)
