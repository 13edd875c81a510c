"""Plays a recorded episode again, step by step: the same states, without a policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import InfrastructureError
from duqsweep.result import EpisodeRecord
from duqsweep.seams import Environment, Observation
from duqsweep.spec import LedgerEntry


@dataclass(frozen=True)
class Recording:
    """What is needed to show one episode of one trial."""

    title: str  # the trial, in words
    entry: LedgerEntry
    record: EpisodeRecord
    actions: NDArray[np.float64]  # (steps, 7)
    call_s: float  # median latency of the policy's calls on the sweep's reference machine
    replan_steps: int  # actions executed per call


class Replay:
    """An episode that is played again up to any step, forwards only."""

    def __init__(self, environment: Environment, recording: Recording) -> None:
        """Reset the simulator to the episode's start.

        Args:
            environment: The episode's suite; it must not be used by others meanwhile.
            recording: The episode.
        """
        self._environment, self._recording = environment, recording
        self._observation = environment.reset(recording.entry)
        self.step, self.success = 0, False

    def advance(self, step: int) -> Observation:
        """What was seen after `step` actions, at least as many as before.

        Raises:
            InfrastructureError: The replay does not end as the recorded episode did: the simulator
                of this machine is not the one that played it.
        """
        if step == self.step:
            return self._observation
        for action in self._recording.actions[self.step : step]:
            self.success = self._environment.step(action)
        self.step = step
        if step == len(self._recording.actions) and self.success != self._recording.record.success:
            recorded = "a success" if self._recording.record.success else "a failure"
            raise InfrastructureError(
                f"episode {self._recording.record.i} was {recorded} and its replay is not: the "
                "simulator of this machine does not repeat that of the sweep"
            )
        self._observation = self._environment.observe()
        return self._observation
