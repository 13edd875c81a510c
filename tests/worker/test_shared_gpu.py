"""Workers that share a GPU: who waits for whom, seen from processes that die and live."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from worker_parts import PaperPolicy, PaperSimulator

from duqsweep import private
from duqsweep.worker import pulse, shared_gpu
from duqsweep.worker.cache import WorkerCache
from duqsweep.worker.policy_calls import Ask, PolicyCalls
from duqsweep.worker.shared_gpu import SharedGpu

LONG_S = 10.0
SHORT_S = 0.3


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_gpu, "SETTLE_S", 0.0)


class Worker:
    """Another process with the same GPU, which holds what it is told to."""

    def __init__(self, folder: Path, gpu: str = "GPU-1") -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_hold, args=(theirs, folder, gpu))
        self.process.start()
        theirs.close()

    def ask(self, what: str) -> None:
        """Hold `what` ("preparing", "alone", "calling"), or "let go"."""
        self.connection.send(what)

    def has_it(self, wait_s: float) -> bool:
        """Whether it holds what it was asked for."""
        if not self.connection.poll(wait_s):
            return False
        self.connection.recv()
        return True

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


@contextmanager
def calling(shared: SharedGpu) -> Iterator[None]:
    """What a worker does that calls its policy."""
    policy = PaperPolicy(lambda noise: noise.astype(np.float64))
    calls: PolicyCalls[str] = PolicyCalls(policy, shared)
    ask = Ask(PaperSimulator().observe(), np.zeros((10, 7), np.float32))
    calls.begin("someone", ask)
    yield
    assert calls.take(wait=True) is not None


def _hold(connection: Connection, folder: Path, gpu: str) -> None:
    with closing(SharedGpu(folder, gpu)) as shared:
        held = None
        while True:
            what = connection.recv()
            if held is not None:
                held.__exit__(None, None, None)
                held = None
            if what != "let go":
                held = calling(shared) if what == "calling" else getattr(shared, what)()
                held.__enter__()
            connection.send("done")


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    made = [Worker(tmp_path) for _ in range(3)]
    yield made
    for worker in made:
        worker.end()


def test_calls_of_all_workers_overlap(workers: list[Worker]) -> None:
    for worker in workers:
        worker.ask("calling")
        assert worker.has_it(LONG_S)


def test_who_measures_waits_for_calls_and_new_calls_wait_for_it(workers: list[Worker]) -> None:
    caller, measurer, later = workers
    caller.ask("calling")
    assert caller.has_it(LONG_S)
    measurer.ask("alone")
    assert not measurer.has_it(SHORT_S)
    later.ask("calling")  # while another waits to measure, else it might wait for ever
    assert not later.has_it(SHORT_S)
    caller.ask("let go")
    assert caller.has_it(LONG_S)
    assert measurer.has_it(LONG_S)
    assert not later.has_it(SHORT_S)
    measurer.ask("let go")
    assert measurer.has_it(LONG_S)
    assert later.has_it(LONG_S)


def test_one_prepares_at_a_time_while_the_others_play(workers: list[Worker]) -> None:
    first, second, player = workers
    first.ask("preparing")
    assert first.has_it(LONG_S)
    second.ask("preparing")
    player.ask("calling")
    assert player.has_it(LONG_S)
    assert not second.has_it(SHORT_S)
    first.ask("let go")
    assert second.has_it(LONG_S)


def test_a_dead_worker_holds_nothing(workers: list[Worker]) -> None:
    first, second, _ = workers
    first.ask("alone")
    assert first.has_it(LONG_S)
    second.ask("alone")
    assert not second.has_it(SHORT_S)
    assert first.process.pid is not None
    os.kill(first.process.pid, signal.SIGKILL)
    assert second.has_it(LONG_S)


def test_other_gpus_are_not_waited_for(tmp_path: Path) -> None:
    one, other = Worker(tmp_path), Worker(tmp_path, "GPU-2")
    try:
        for worker in (one, other):
            worker.ask("alone")
            assert worker.has_it(LONG_S)
    finally:
        one.end()
        other.end()


def test_to_wait_is_no_hang(tmp_path: Path) -> None:
    holder = Worker(tmp_path)
    try:
        holder.ask("alone")
        assert holder.has_it(LONG_S)
        before = pulse.count()
        waiter = Worker(tmp_path)  # a fork, which advances the same counter
        waiter.ask("calling")
        time.sleep(SHORT_S)
        assert pulse.count() > before
        waiter.end()
    finally:
        holder.end()


def test_other_simulators_do_not_end_a_turn(
    tmp_path: Path, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedGpu, "of", classmethod(lambda cls, device: cls(tmp_path, "GPU-1")))
    with closing(WorkerCache()) as bench, bench.gpu("cuda").preparing():
        bench.resize(2)
        workers[0].ask("preparing")
        assert not workers[0].has_it(SHORT_S)
    assert workers[0].has_it(LONG_S)


def test_a_cpu_is_not_shared() -> None:
    gpu = SharedGpu.of("cpu")
    with closing(gpu), gpu.preparing(), gpu.alone(), calling(gpu):
        pass  # on a GPU, the call would wait for ever


def test_the_folder_of_locks_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = private.machine_folder("gpus")
    assert folder == private.machine_folder("gpus")
    assert private.is_private(folder)
    folder.chmod(0o777)
    assert private.machine_folder("gpus") != folder
