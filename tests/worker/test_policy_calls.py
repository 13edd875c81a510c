"""Calls of one policy that have begun: their order, their number, their times, their end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from worker_parts import PaperPolicy, PaperSimulator, ThreadedPolicy

from duqsweep.worker.policy_calls import Ask, PolicyCalls
from duqsweep.worker.shared_gpu import SharedGpu

CALL_S = 0.02


def ask(number: float) -> Ask:
    return Ask(PaperSimulator().observe(), np.full((10, 7), number, np.float32))


@pytest.fixture
def policy() -> Iterator[ThreadedPolicy]:
    """Two calls at once, each of CALL_S."""
    with closing(ThreadedPolicy(CALL_S)) as made:
        yield made


@pytest.fixture
def calls(policy: ThreadedPolicy) -> PolicyCalls[str]:
    return PolicyCalls(policy, SharedGpu.of("cpu"))


def test_actions_come_in_the_order_of_the_questions(calls: PolicyCalls[str]) -> None:
    taken = []
    for number in range(6):
        calls.begin(f"caller {number}", ask(number))
        if calls.are_full:
            taken.append(calls.take(wait=True))
    taken.append(calls.take(wait=True))
    assert not calls.any
    assert [found and found[0] for found in taken] == [f"caller {number}" for number in range(6)]
    assert [found and found[1].actions[0, 0] for found in taken] == list(range(6))


def test_two_have_begun_at_most_and_nobody_is_waited_for_unasked(calls: PolicyCalls[str]) -> None:
    calls.begin("first", ask(1))
    assert not calls.are_full
    calls.begin("second", ask(2))
    assert calls.are_full
    assert calls.take(wait=False) is None
    found = calls.take(wait=True)
    assert found is not None
    assert found[0] == "first"
    assert not calls.are_full
    calls.give_up()


def test_times_of_calls_that_overlap_add_up_to_the_time_that_passed(
    calls: PolicyCalls[str],
) -> None:
    started_s, busy_s = time.perf_counter(), []
    for number in range(5):
        calls.begin("caller", ask(number))
        if calls.are_full:
            found = calls.take(wait=True)
            assert found is not None
            busy_s.append(found[1].policy_s)
    passed_s = time.perf_counter() - started_s
    calls.give_up()
    assert len(busy_s) == 4
    assert min(busy_s) >= CALL_S / 2
    assert sum(busy_s) <= passed_s


def test_after_giving_up_the_policy_serves_others(calls: PolicyCalls[str]) -> None:
    calls.begin("first", ask(1))
    calls.begin("second", ask(2))
    calls.give_up()
    assert not calls.any
    calls.begin("third", ask(3))
    found = calls.take(wait=True)
    assert found is not None
    assert found[0] == "third"
    assert found[1].actions[0, 0] == 3


def make_call(calls: PolicyCalls[str]) -> None:
    calls.begin("caller", ask(1))
    calls.take(wait=True)


@pytest.mark.parametrize("when", ["at its begin", "later"])
def test_a_call_that_fails_keeps_nobody_from_measuring(tmp_path: Path, when: str) -> None:
    def fail(*_: object) -> np.ndarray:
        raise ValueError("a kernel without this shape")

    policy = PaperPolicy(fail)
    if when == "at its begin":
        policy.begin = fail  # type: ignore[method-assign, assignment]
    with closing(SharedGpu(tmp_path, "GPU-1")) as gpu, closing(SharedGpu(tmp_path, "GPU-1")) as it:
        calls: PolicyCalls[str] = PolicyCalls(policy, gpu)
        with pytest.raises(ValueError, match="without this shape"):
            make_call(calls)
        with it.alone():  # would wait for ever
            assert not gpu.join_calls()


def test_while_another_measures_calls_that_have_begun_end_and_no_new_one_begins(
    tmp_path: Path, policy: ThreadedPolicy
) -> None:
    from threading import Thread

    with closing(SharedGpu(tmp_path, "GPU-1")) as gpu, closing(SharedGpu(tmp_path, "GPU-1")) as it:
        calls: PolicyCalls[str] = PolicyCalls(policy, gpu)
        calls.begin("first", ask(1))
        moments: list[float] = []

        def measure() -> None:
            with it.alone():
                moments.append(time.perf_counter())
                time.sleep(5 * CALL_S)
                moments.append(time.perf_counter())

        measuring = Thread(target=measure)
        measuring.start()
        while gpu.join_calls():  # until the other one waits for the first call
            gpu.leave_calls()
        calls.begin("second", ask(2))
        measuring.join()
        assert policy.begun_s[1] >= moments[1] > moments[0] >= policy.ended_s[0]
        found = [calls.take(wait=True) for _ in range(2)]
        assert [one and one[0] for one in found] == ["first", "second"]
