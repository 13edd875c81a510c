"""One rollout of one ledger entry."""

from __future__ import annotations

import time
from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import EvaluationError, InfrastructureError
from duqsweep.result import EpisodeRecord
from duqsweep.seams import ACTION_DIM, Environment, Policy
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker.noise import episode_key, flow_noise
from duqsweep.worker.policy_calls import Acted, Ask
from duqsweep.worker.simulator_requests import Answer, Play, Request, Reset, answer

# What an episode needs to go on: something of its simulator, or of the policy.
Wish = Request | Ask
Episode = Generator[Wish, Answer | Acted, None]


class Rollout:
    """The state of one episode; `run` plays it to its end."""

    def __init__(self, policy: Policy, entry: LedgerEntry, suite: SuiteSpec) -> None:
        """Prepare the episode `entry`; nothing moves yet.

        Args:
            policy: Whoever plays the episode asks it; here, its sizes are read.
            entry: What is played.
            suite: Its number of steps, and how many of a chunk's actions are executed.
        """
        self.policy, self.entry, self.suite = policy, entry, suite
        self.success = False
        self.steps = self.calls = 0
        self.policy_s = self.sim_s = self.wall_s = 0.0
        self._executed: list[NDArray[np.float64]] = []  # (steps, 7) per call

    def run(self) -> Episode:
        """Play until the goal holds or the steps are used up.

        The first `replan_steps` of each predicted chunk are executed before the policy is asked
        again.

        Yields:
            What the simulator or the policy is to do; the answer is sent, or the
            InfrastructureError with which the simulator failed is thrown.

        Raises:
            InfrastructureError: The one that was thrown.
            EvaluationError: The policy gave actions that are not finite.
        """
        started_s = time.perf_counter()
        try:
            yield from self._steps()
        finally:
            self.wall_s = time.perf_counter() - started_s

    def _steps(self) -> Episode:
        found = yield Reset(self.entry)
        assert isinstance(found, Answer)
        self.sim_s += found.sim_s
        while True:
            assert found.observation is not None
            acted = yield Ask(found.observation, self._noise())
            assert isinstance(acted, Acted)
            self._count(acted)
            left = self.suite.max_steps - self.steps
            chunk = acted.actions[: min(self.suite.replan_steps, left)]
            found = yield Play(chunk, observe=len(chunk) < left)
            assert isinstance(found, Answer)
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
            policy_s=round(self.policy_s, 6),
            sim_s=round(self.sim_s, 6),
            wall_s=round(self.wall_s, 6),
            error=None if error is None else f"{type(error).__name__}: {error}",
            attempt=attempt,
        )

    def _noise(self) -> NDArray[np.float32]:
        key = episode_key(self.entry, self.calls)
        return flow_noise(key, self.policy.horizon, self.policy.action_dim)

    def _count(self, acted: Acted) -> None:
        self.policy_s += acted.policy_s
        self.calls += 1
        if not np.isfinite(acted.actions).all():
            raise EvaluationError(
                f"the policy's actions are not finite: call {self.calls}, episode {self.entry.i}"
            )


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
        wish = next(episode)
        while True:
            if isinstance(wish, Ask):
                started_s = time.perf_counter()
                actions = policy.act(wish.observation, wish.noise)
                wish = episode.send(Acted(actions, time.perf_counter() - started_s))
                continue
            try:
                found = answer(environment, wish)
            except InfrastructureError as failure:
                episode.throw(failure)
            wish = episode.send(found)
    except StopIteration:
        return rollout.record(attempt, None)
    except InfrastructureError as error:
        return rollout.record(attempt, error)
