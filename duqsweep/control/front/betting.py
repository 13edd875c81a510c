"""Evidence from paired episodes that holds however often somebody looks at it.

Against the claim "the trial loses at least the margin", money is put on each common episode: a
bet λ multiplies it by 1 + λ (margin - loss), where loss is 1, 0 or -1. If the claim is true, no bet
wins on average, so by Ville's inequality the money ever reaches T times the stake with probability
1/T at most, over all looks together. Several bets are placed at once and added (Waudby-Smith and
Ramdas, Estimating means of bounded random variables by betting, JRSS B 2024).
"""

from __future__ import annotations

import math

from duqsweep.control.front.pairs import Pairs

BETS = (0.2, 0.4, 0.6, 0.8, 0.95)  # shares of the money; below 1, so that none is lost altogether
_STEPS = 50  # of a bisection
_MOST_TIMES = 1e4  # as many episodes as there are: nobody waits longer


def log_evidence(pairs: Pairs, margin: float, times: float = 1.0) -> float:
    """Logarithm of the money after a stake of 1; it grows with `margin`.

    Args:
        pairs: What both have played.
        margin: Of success rate, from 0 to 1.
        times: As if everything had happened so many times.
    """
    ties = pairs.episodes - pairs.wins - pairs.losses
    logs = [
        times
        * (
            ties * math.log1p(bet * margin)
            + pairs.wins * math.log1p(bet * (margin + 1))
            + pairs.losses * math.log1p(bet * (margin - 1))
        )
        for bet in BETS
    ]
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))


def loss_bound(pairs: Pairs, threshold: float) -> float:
    """The least margin against which the evidence reaches `threshold`; 1 where none does."""
    low, high, goal = 0.0, 1.0, math.log(threshold)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if log_evidence(pairs, middle) >= goal else (middle, high)
    return high


def episodes_needed(pairs: Pairs, margin: float, threshold: float) -> int | None:
    """Common episodes after which the evidence reaches `threshold`, if things go on as they do.

    None where they never will: the loss so far is too close to the margin, or above it.
    """
    if not pairs.episodes:
        return None
    goal = math.log(threshold)
    if log_evidence(pairs, margin, _MOST_TIMES) < goal:
        return None
    low, high = 0.0, _MOST_TIMES
    for _ in range(_STEPS):
        middle = (low + high) / 2
        enough = log_evidence(pairs, margin, middle) >= goal
        low, high = (low, middle) if enough else (middle, high)
    return math.ceil(pairs.episodes * high)
