"""One rollout of one ledger entry."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import EvaluationError, InfrastructureError
from duqsweep.result import EpisodeRecord
from duqsweep.seams import ACTION_DIM, Environment, Observation, Policy
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker.noise import episode_key, flow_noise
from duqsweep.worker.simulator_requests import Answer, Play, Request, Reset, answer


class Stopwatch:
    """Adds up the seconds spent in one part of an episode."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start at zero."""
        self.seconds = 0.0
        self._clock = clock
        self._started = 0.0

    def __enter__(self) -> Stopwatch:
        """Go on counting."""
        self._started = self._clock()
        return self

    def __exit__(self, *_error: object) -> None:
        """Pause."""
        self.seconds += self._clock() - self._started


class Rollout:
    """The state of one episode; `run` plays it to its end."""

    def __init__(
        self,
        policy: Policy,
        entry: LedgerEntry,
        suite: SuiteSpec,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Prepare the episode `entry`; nothing moves yet.

        Args:
            policy: Called with one observation at a time.
            entry: What is played.
            suite: Its number of steps, and how many of a chunk's actions are executed.
            turn: Within what it gives, the policy may be called; waiting for it is not call time.
        """
        self.policy, self.entry, self.suite, self._turn = policy, entry, suite, turn
        self.success = False
        self.steps = self.calls = 0
        self.sim_s = 0.0
        self._executed: list[NDArray[np.float64]] = []  # (steps, 7) per call
        self.policy_time, self.wall_time = Stopwatch(), Stopwatch()

    def run(self) -> Generator[Request, Answer, None]:
        """Play until the goal holds or the steps are used up.

        The first `replan_steps` of each predicted chunk are executed before the policy is asked
        again.

        Yields:
            What the simulator is to do; its answer is sent, or the InfrastructureError with which
            it failed is thrown.

        Raises:
            InfrastructureError: The one that was thrown.
            EvaluationError: The policy gave actions that are not finite.
        """
        with self.wall_time:
            found = yield Reset(self.entry)
            self.sim_s += found.sim_s
            while True:
                assert found.observation is not None
                actions = self._next_actions(found.observation)
                left = self.suite.max_steps - self.steps
                chunk = actions[: min(self.suite.replan_steps, left)]
                found = yield Play(chunk, observe=len(chunk) < left)
                self.sim_s += found.sim_s
                self.steps += found.steps
                self._executed.append(chunk[: found.steps])
                self.success = found.success
                if self.success or self.steps >= self.suite.max_steps:
                    return

    @property
    def actions(self) -> NDArray[np.float64]:
        """The actions that were executed, (steps, 7)."""
        return np.concatenate(self._executed) if self._executed else np.empty((0, ACTION_DIM))

    def record(self, attempt: int, error: InfrastructureError | None) -> EpisodeRecord:
        """The episode as far as it went."""
        return EpisodeRecord(
            i=self.entry.i,
            suite=self.entry.suite,
            task=self.entry.task,
            init_state=self.entry.init_state,
            seed=self.entry.seed,
            success=self.success,
            steps=self.steps,
            calls=self.calls,
            policy_s=round(self.policy_time.seconds, 6),
            sim_s=round(self.sim_s, 6),
            wall_s=round(self.wall_time.seconds, 6),
            error=None if error is None else f"{type(error).__name__}: {error}",
            attempt=attempt,
        )

    def _next_actions(self, observation: Observation) -> NDArray[np.float64]:
        key = episode_key(self.entry, self.calls)
        noise = flow_noise(key, self.policy.horizon, self.policy.action_dim)
        with self._turn(), self.policy_time:
            self.policy.synchronize()
            actions = self.policy.act(observation, noise)
            self.policy.synchronize()
        self.calls += 1
        if not np.isfinite(actions).all():
            raise EvaluationError(
                f"the policy's actions are not finite: call {self.calls}, episode {self.entry.i}"
            )
        return actions


def run_episode(
    environment: Environment,
    policy: Policy,
    entry: LedgerEntry,
    suite: SuiteSpec,
    attempt: int = 0,
) -> EpisodeRecord:
    """Play one episode in this process; a failing simulator becomes the record's `error`.

    The flow's noise is keyed by (seed, episode, call): trials of a sweep meet the same noise.

    Raises:
        EvaluationError: The policy gave actions that are not finite, which is its own fault.
    """
    rollout = Rollout(policy, entry, suite)
    episode = rollout.run()
    try:
        request = next(episode)
        while True:
            try:
                found = answer(environment, request)
            except InfrastructureError as failure:
                episode.throw(failure)
            request = episode.send(found)
    except StopIteration:
        return rollout.record(attempt, None)
    except InfrastructureError as error:
        return rollout.record(attempt, error)
