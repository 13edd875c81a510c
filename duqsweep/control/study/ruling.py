"""When its time alone rules a trial out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from duqsweep.control.front.intervals import probability_at_least

# Without a margin the noise of the clock swaps neighbours, and two to five times as many members of
# the front are lost (simulated).
TIME_MARGIN = 0.04
CONFIDENCE = 0.98
MIN_SPEEDUP = 1 / (1 + TIME_MARGIN)  # against the unquantized policy


@dataclass(frozen=True)
class Rival:
    """A trial that was evaluated."""

    trial: int
    speedup: float  # of a nominal episode, against the reference on its own node
    successes: int
    episodes: int  # successes and failures


def ruled_out(speedup: float, successes: int, episodes: int, rivals: Iterable[Rival]) -> str | None:
    """Why a trial cannot reach the front of success and time; None while it can.

    It cannot if it is slower than the unquantized policy, which its quantization only approximates;
    or slower than a rival whose success rate is at least its own with a probability of
    `CONFIDENCE`. Slower means by more than `TIME_MARGIN`.

    Args:
        speedup: Of a nominal episode of the trial, against the reference.
        successes: Of the trial so far.
        episodes: Its successes and failures so far; 0 is allowed.
        rivals: Evaluated trials.
    """
    if speedup < MIN_SPEEDUP:
        return f"slower than the unquantized policy: {speedup:.2f} times its speed"
    for rival in rivals:
        if speedup * (1 + TIME_MARGIN) >= rival.speedup:
            continue
        sure = probability_at_least(rival.successes, rival.episodes, successes, episodes)
        if sure >= CONFIDENCE:
            return (
                f"slower than trial {rival.trial}, {speedup:.2f} against {rival.speedup:.2f} times "
                f"the unquantized speed, which succeeds as often with probability {sure:.3f}"
            )
    return None
