"""Several simulators in processes of their own, one policy: numbers, order, deaths, hangs."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from light_environment import OPENER, LightEnvironment
from worker_parts import PaperPolicy, PaperSimulator, ThreadedPolicy

from duqsweep.errors import InfrastructureError
from duqsweep.result import EpisodeRecord
from duqsweep.seams import Observation
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker.episode import Episode, Rollout, run_episode
from duqsweep.worker.episode_queue import EpisodeQueue
from duqsweep.worker.policy_calls import PolicyCalls
from duqsweep.worker.remote_simulator import OpeningError, RemoteSimulator, Simulator
from duqsweep.worker.shared_gpu import SharedGpu
from duqsweep.worker.shared_observation import SharedObservation
from duqsweep.worker.simulator_pool import SimulatorPool

HANG_S = 3.0
ORPHAN = """
import sys
from duqsweep.spec import LedgerEntry
from duqsweep.worker.remote_simulator import RemoteSimulator
from duqsweep.worker.simulator_requests import Reset
from duqsweep.codec import decode
from duqsweep.spec import SuiteSpec
import json
simulator = RemoteSimulator(decode(SuiteSpec, json.loads(sys.argv[1])), sys.argv[2])
simulator.request(Reset(LedgerEntry(0, "duq_mini", 0, 0, 7)))
while simulator.receive() is None:
    pass
while simulator._process.pid is None:
    simulator._process.wait(0.1)
print(simulator._process.pid, flush=True)
input()
"""


@pytest.fixture
def light_suite(suite: SuiteSpec, tmp_path: Path) -> SuiteSpec:
    return dataclasses.replace(suite, assets=str(tmp_path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("light")


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[SimulatorPool]:
    """Three simulators for all tests: each test leaves them usable for the next."""
    suite = SuiteSpec("duq_mini", 4, 50, 64, 12, 12, 2, 5, assets=str(folder), renderer="osmesa")
    pool = SimulatorPool([RemoteSimulator(suite, OPENER) for _ in range(3)], HANG_S)
    yield pool
    pool.close()


def entries(count: int, tasks: int = 4) -> list[LedgerEntry]:
    return [LedgerEntry(i, "duq_mini", i % tasks, i, 7) for i in range(count)]


def seeing() -> PaperPolicy:
    """A policy whose actions depend on every bit of what it sees and on its noise."""
    policy = PaperPolicy(lambda noise: np.asarray(noise, np.float64))
    policy.act = act_on_sight  # type: ignore[method-assign]
    return policy


def act_on_sight(observation: Observation, noise: np.ndarray) -> np.ndarray:
    mean = np.mean([picture.astype(float).mean() for picture in observation.images.values()])
    moved = observation.eef_pos.sum() + mean / 255 + len(observation.instruction)
    return np.abs(noise.astype(np.float64)) * np.sin(moved) ** 2


def play(
    pool: SimulatorPool,
    wanted: list[LedgerEntry],
    suite: SuiteSpec,
    policy: PaperPolicy | None = None,
) -> list[EpisodeRecord]:
    """Records in the order in which the episodes ended; a failed one is played once more."""
    queue, records, policy = EpisodeQueue([(e, 0) for e in wanted], 16), [], policy or seeing()

    def begin(simulator: Simulator) -> tuple[tuple[Rollout, int], Episode] | None:
        if not queue:
            return None
        entry, attempt = queue.take(simulator, pool.simulators)
        rollout = Rollout(policy, entry, suite)
        return (rollout, attempt), rollout.run()

    def end(played: tuple[Rollout, int], error: InfrastructureError | None) -> None:
        rollout, attempt = played
        records.append(rollout.record(attempt, error))
        if error is not None and not attempt:
            queue.again((rollout.entry, 1))

    pool.play(begin, end, PolicyCalls(policy, SharedGpu.of("cpu")))
    return records


def untimed(records: list[EpisodeRecord]) -> list[EpisodeRecord]:
    still = [dataclasses.replace(r, policy_s=0.0, sim_s=0.0, wall_s=0.0) for r in records]
    return sorted(still, key=lambda record: (record.i, record.attempt))


def alone(folder: Path, wanted: list[LedgerEntry], suite: SuiteSpec) -> list[EpisodeRecord]:
    environment = LightEnvironment(folder)
    return [run_episode(environment, seeing(), entry, suite) for entry in wanted]


def test_three_simulators_give_the_numbers_of_one(
    pool: SimulatorPool, folder: Path, suite: SuiteSpec
) -> None:
    wanted = entries(12)
    expected = untimed(alone(folder, wanted, suite))
    assert len({record.steps for record in expected}) > 1
    assert untimed(play(pool, wanted, suite)) == expected


def test_calls_that_overlap_give_the_numbers_of_calls_made_alone(
    pool: SimulatorPool, folder: Path, suite: SuiteSpec
) -> None:
    wanted = entries(12)
    with closing(ThreadedPolicy(0.005, act_on_sight)) as policy:
        records = play(pool, wanted, suite, policy)
    assert untimed(records) == untimed(alone(folder, wanted, suite))
    waited = zip(policy.begun_s[1:], policy.ended_s, strict=False)
    assert any(begun < ended for begun, ended in waited)  # else nothing overlapped


def test_a_simulator_keeps_to_the_tasks_that_it_has_built(
    pool: SimulatorPool, folder: Path, suite: SuiteSpec
) -> None:
    pool.close()
    (folder / "built").unlink(missing_ok=True)
    play(pool, entries(16), suite)
    built = [line.split() for line in (folder / "built").read_text().splitlines()]
    assert len(built) < 12  # of four tasks by three simulators
    assert len({pid for pid, _ in built}) == 3


def test_tasks_are_built_before_anybody_plays(
    pool: SimulatorPool, folder: Path, suite: SuiteSpec
) -> None:
    pool.close()
    (folder / "built").unlink(missing_ok=True)
    wanted = entries(3)
    pool.begin_to_build(entries(40))  # three simulators: of the first three
    deadline = time.monotonic() + 30
    while not (folder / "built").exists() or len((folder / "built").read_text().split()) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert untimed(play(pool, wanted, suite)) == untimed(alone(folder, wanted, suite))
    tasks = [line.split()[1] for line in (folder / "built").read_text().splitlines()]
    assert sorted(tasks[:3]) == ["0", "1", "2"]
    assert len(tasks) == 3 + 3  # `alone` builds each again


def test_simulators_that_take_turns_build_each_task_once() -> None:
    class Holder:
        """A simulator that has built the tasks which it was given."""

        def __init__(self) -> None:
            self.tasks: set[int] = set()

        def holds(self, entry: LedgerEntry) -> bool:
            return entry.task in self.tasks

    queue, built = EpisodeQueue([(e, 0) for e in entries(24)], 16), 0
    holders, taken = [Holder() for _ in range(4)], []
    while queue:
        holder = holders[len(taken) % len(holders)]
        entry, _ = queue.take(holder, holders)  # type: ignore[arg-type]
        built += entry.task not in holder.tasks
        holder.tasks.add(entry.task)
        taken.append(entry.i)
    assert built == 4
    assert sorted(taken) == list(range(24))


@pytest.mark.fault(
    "the process of one of several simulators dies, or says nothing",
    "that episode gets a second attempt, the other simulators continue",
)
@pytest.mark.parametrize(
    ("mishap", "said"),
    [
        ("killed", "killed by SIGKILL"),
        ("segfault", "killed by SIGSEGV"),
        ("hung", "gave no answer for 3 s"),
        ("error", "lost its context"),
    ],
)
def test_a_failing_simulator_costs_its_episode_one_attempt_and_nothing_else(
    pool: SimulatorPool, folder: Path, suite: SuiteSpec, mishap: str, said: str
) -> None:
    wanted = entries(7)
    expected = untimed(alone(folder, wanted, suite))
    (folder / mishap).write_text("4")
    records = play(pool, wanted, suite)
    failed = [record for record in records if record.error is not None]
    assert [(record.i, record.attempt) for record in failed] == [(4, 0)]
    assert said in str(failed[0].error)
    ran = [dataclasses.replace(r, attempt=0) for r in records if r.error is None]
    assert untimed(ran) == expected


def test_episodes_that_were_given_up_leave_no_answer_behind(
    pool: SimulatorPool, folder: Path, suite: SuiteSpec
) -> None:
    def begin(simulator: Simulator) -> tuple[int, Episode] | None:
        number = pool.simulators.index(simulator)
        return number, Rollout(seeing(), entries(40)[20 + number], suite).run()

    def end(number: int, error: InfrastructureError | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.play(begin, end, PolicyCalls(seeing(), SharedGpu.of("cpu")))
    wanted = entries(6)
    assert untimed(play(pool, wanted, suite)) == untimed(alone(folder, wanted, suite))


def test_a_simulator_that_cannot_be_opened_is_no_episodes_fault(light_suite: SuiteSpec) -> None:
    missing = dataclasses.replace(light_suite, assets="/nonexistent")
    pool = SimulatorPool([RemoteSimulator(missing, OPENER)], HANG_S)
    with pytest.raises(OpeningError, match="no renderer"):
        play(pool, entries(1), light_suite)
    pool.close()


@pytest.mark.fault("policy's process dies, its simulators with it", "no simulator is left behind")
def test_a_simulator_ends_with_the_process_of_the_policy(light_suite: SuiteSpec) -> None:
    import json

    from duqsweep.codec import encode

    words = [sys.executable, "-c", ORPHAN, json.dumps(encode(light_suite)), OPENER]
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        simulator = int(process.stdout.readline())
        assert Path(f"/proc/{simulator}").exists()
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{simulator}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert not Path(f"/proc/{simulator}").exists()


def test_an_observation_survives_shared_memory_to_the_bit() -> None:
    memory = SharedObservation(64)
    reader = SharedObservation(64, os.dup(memory.descriptor))
    simulator = PaperSimulator()
    simulator.position = 1 / 3
    written = simulator.observe()
    memory.write(written)
    found = reader.read(written.instruction)
    memory.write(PaperSimulator().observe())  # what was read is a copy
    for field in dataclasses.fields(Observation):
        one, other = getattr(found, field.name), getattr(written, field.name)
        if field.name == "images":
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[camera], other[camera]) for camera in one)
        else:
            assert np.array_equal(one, other)
    reader.close()
    memory.close()
