"""Faults of the cluster: its controller stops or forgets, a node dies or cannot start a job."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends, wait_until
from slurm_lab import SlurmLab

from duqsweep.control.dispatch import evidence, pool
from duqsweep.control.dispatch.dispatcher import Assignment, Dispatcher
from duqsweep.files import EPISODES_JSONL, read_lines
from duqsweep.processes import start_ticks

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.parametrize("launcher", ["slurm"], indirect=True),
]
NODE_DIES_S = 60.0  # SlurmdTimeout and more


def one_running(lab: Lab) -> tuple[Dispatcher, Path]:
    folder = lab.trial(0, episode_s=0.1)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 2000))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) >= 1)
    return dispatcher, folder


def walked(folder: Path) -> list[int]:
    return [line["i"] for line in read_lines(folder / EPISODES_JSONL)]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def poll_until(dispatcher: Dispatcher, condition: Callable[[], bool]) -> list:
    """Poll as the sweep does; what has ended meanwhile."""
    ended: list = []

    def look() -> bool:
        ended.extend(dispatcher.poll())
        return condition()

    wait_until(look)
    return ended


@pytest.mark.fault("slurmctld away for a while", "work waits for it")
def test_a_controller_that_is_away_for_a_while_ends_nothing_and_new_work_waits_for_it(
    lab: Lab, slurm: SlurmLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BACK_OFF_S", 1.0)
    dispatcher, folder = one_running(lab)
    slurm.end("slurmctld", signal.SIGTERM)
    lab.trial(1)
    dispatcher.submit(Assignment(1, 1))
    assert sorted(one.trial for one in dispatcher.pending()) == [0, 1]
    before = len(walked(folder))
    assert poll_until(dispatcher, lambda: len(walked(folder)) > before + 5) == []
    slurm.start_controller()
    (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.assignment.trial, ended.failure) == (1, None)
    dispatcher.stop(0, "asked to")
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert (lab.visits(0), lab.visits(1)) == (1, 1)


@pytest.mark.fault("slurmctld forgot the job", "lost, its trial is retried")
def test_a_job_that_the_controller_forgot_is_lost_and_its_trial_goes_on(
    lab: Lab, slurm: SlurmLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "ABSENT_S", 10.0)
    dispatcher, folder = one_running(lab)
    (box,) = mailboxes(lab)
    slurm.end("slurmctld", signal.SIGKILL)
    for state in (slurm.folder / "state").glob("job_state*"):
        state.unlink()  # ids start again at 1
    slurm.start_controller()
    (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.failure.kind, ended.failure.retry) == ("lost", True)
    wait_until(lambda: start_ticks(box.heartbeat().pid) is None)  # its node ends what nobody knows
    dispatcher.submit(Assignment(0, len(walked(folder)) + 1))
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert walked(folder) == list(range(len(walked(folder))))


@pytest.mark.fault("node dies", "resumed on another node")
def test_work_of_a_dead_node_goes_on_at_the_next_episode_on_another(
    lab: Lab, slurm: SlurmLab
) -> None:
    dispatcher, folder = one_running(lab)
    (box,) = mailboxes(lab)
    alive = box.heartbeat()
    slurm.end(f"slurmd-{alive.node}", signal.SIGKILL)
    (visit,) = read_lines(folder / "visits.jsonl")
    for pid in (parent(alive.pid), alive.pid, visit["pid"]):  # the first would report their end
        os.kill(pid, signal.SIGKILL)
    (ended,) = wait_for_ends(dispatcher, 1, NODE_DIES_S)
    assert (ended.failure.kind, ended.failure.retry) == ("node", True)
    assert "NODE_FAIL" in ended.failure.message
    dispatcher.submit(Assignment(0, len(walked(folder)) + 1))
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert walked(folder) == list(range(len(walked(folder))))
    assert mailboxes(lab)[1].heartbeat().node != alive.node
    slurm.start_node(alive.node)


@pytest.mark.fault("node cannot begin a job", "the node's fault, retried")
def test_a_node_that_cannot_begin_a_job_is_a_fault_of_the_node(lab: Lab, slurm: SlurmLab) -> None:
    """SLURM drains such a node and says CANCELLED, as if a user had cancelled the job."""
    lab.trial(0)
    dispatcher = lab.open(jobs=1)
    with slurm.broken():
        dispatcher.submit(Assignment(0, 1))
        (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.failure.kind, ended.failure.retry) == ("node", True)
    dispatcher.submit(Assignment(0, 1))
    assert wait_for_ends(dispatcher, 1)[0].failure is None
