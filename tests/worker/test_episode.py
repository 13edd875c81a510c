"""One episode: how chunks are executed, what is counted, which faults are the policy's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from worker_parts import PaperPolicy, PaperSimulator

from duqsweep.errors import EvaluationError
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker.episode import run_episode
from duqsweep.worker.noise import episode_key, flow_noise

ENTRY = LedgerEntry(i=3, suite="duq_mini", task=1, init_state=4, seed=7)


def forward(speed: float) -> PaperPolicy:
    return PaperPolicy(lambda noise: np.full((10, 7), speed))


def test_an_episode_ends_with_the_goal(suite: SuiteSpec) -> None:
    policy = forward(0.1)  # from 0.04, the eighth step passes 0.75
    record = run_episode(PaperSimulator(goal=0.75), policy, ENTRY, suite)
    assert (record.success, record.steps, record.calls, record.error) == (True, 8, 2, None)
    assert (record.i, record.task, record.init_state, record.seed) == (3, 1, 4, 7)


def test_an_episode_fails_at_the_step_limit_inside_a_chunk(suite: SuiteSpec) -> None:
    record = run_episode(PaperSimulator(), forward(0.0), ENTRY, suite)
    assert (record.success, record.steps, record.calls) == (False, 12, 3)


def test_each_call_gets_the_noise_of_its_episode_and_number(suite: SuiteSpec) -> None:
    policy = forward(0.0)
    run_episode(PaperSimulator(), policy, ENTRY, suite)
    expected = [flow_noise(episode_key(ENTRY, call), 10, 7) for call in range(3)]
    assert np.array_equal(policy.noises, expected)


def test_times_add_up(suite: SuiteSpec) -> None:
    record = run_episode(PaperSimulator(), forward(0.0), ENTRY, suite)
    assert 0 < record.policy_s + record.sim_s <= record.wall_s + 1e-5


def test_a_failing_simulator_is_an_error_and_not_a_failure(suite: SuiteSpec) -> None:
    simulator = PaperSimulator(broken_resets=(0,))
    record = run_episode(simulator, forward(0.0), ENTRY, suite, attempt=1)
    assert record.error == "InfrastructureError: the renderer lost its context"
    assert (record.success, record.steps, record.attempt) == (False, 0, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_actions_that_are_not_finite_are_the_policys_fault(suite: SuiteSpec, value: float) -> None:
    with pytest.raises(EvaluationError, match="not finite: call 1, episode 3"):
        run_episode(PaperSimulator(), forward(value), ENTRY, suite)


def test_other_replanning_makes_other_calls(suite: SuiteSpec) -> None:
    every_step = dataclasses.replace(suite, replan_steps=1)
    assert run_episode(PaperSimulator(), forward(0.0), ENTRY, every_step).calls == 12
