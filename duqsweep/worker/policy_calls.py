"""The policy's calls of all episodes: first come, first served, each with one observation."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from duqsweep.seams import Observation, PendingActions, Policy
from duqsweep.worker import pulse
from duqsweep.worker.shared_gpu import POLL_S, SharedGpu

Caller = TypeVar("Caller")


@dataclass(frozen=True)
class Ask:
    """Predict a chunk of actions."""

    observation: Observation  # must not change until they are there
    noise: NDArray[np.float32]  # (horizon, action_dim), standard normal


@dataclass(frozen=True)
class Acted:
    """What the policy predicted."""

    actions: NDArray[np.float64]  # (horizon, 7) in [-1, 1]
    policy_s: float  # from the end of the call before, if that was later than its own begin


@dataclass(frozen=True)
class _Begun(Generic[Caller]):
    caller: Caller
    pending: PendingActions
    at_s: float


class PolicyCalls(Generic[Caller]):
    """Calls that have begun and those that are over, in the order in which they were asked for."""

    def __init__(self, policy: Policy, gpu: SharedGpu) -> None:
        """Begin nothing yet.

        Args:
            policy: Called with one observation at a time.
            gpu: On which no call begins while another worker measures.
        """
        self._policy, self._gpu = policy, gpu
        self._begun: deque[_Begun[Caller]] = deque()
        self._over: deque[tuple[Caller, Acted]] = deque()
        self._ended_s = 0.0  # when the last call did

    @property
    def any(self) -> bool:
        """Whether there is something to `take`, now or later."""
        return bool(self._begun or self._over)

    @property
    def are_full(self) -> bool:
        """Whether the policy can begin nothing before something was taken."""
        return len(self._begun) + len(self._over) >= self._policy.calls_at_once

    def begin(self, caller: Caller, ask: Ask) -> None:
        """Begin a call; while another worker measures, wait, and let those before come to an end.

        Raises:
            Exception: What the policy raised.
        """
        while not self._gpu.join_calls():
            if self._begun:
                self._end()
            else:
                pulse.advance()  # to wait is no hang
                time.sleep(POLL_S)
        started_s = time.perf_counter()
        try:
            pending = self._policy.begin(ask.observation, ask.noise)
        except BaseException:
            self._gpu.leave_calls()
            raise
        self._begun.append(_Begun(caller, pending, started_s))

    def take(self, wait: bool) -> tuple[Caller, Acted] | None:
        """Who asked first of all whose actions were not taken yet, with these.

        Args:
            wait: Until they are there; there must be `any`. Otherwise None if they are not.
        """
        if not self._over and self._begun and (wait or self._begun[0].pending.is_over()):
            self._end()
        return self._over.popleft() if self._over else None

    def give_up(self) -> None:
        """Forget the calls that have begun; the policy can be called again."""
        while self._begun:
            self._end()
        self._over.clear()

    def _end(self) -> None:
        """Wait for the first call that has begun."""
        first = self._begun.popleft()
        try:
            actions = first.pending.wait()
        finally:
            self._gpu.leave_calls()
        now = time.perf_counter()
        busy_s = now - max(first.at_s, self._ended_s)
        self._ended_s = now
        self._over.append((first.caller, Acted(actions, busy_s)))
