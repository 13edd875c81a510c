"""A controller dies and the next one continues: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from light_controller import EPISODES
from light_lab import Lab, mailboxes, wait_for_ends, wait_until

from duqsweep.control.dispatch import pool
from duqsweep.control.dispatch.dispatcher import Assignment, Dispatcher, Ended
from duqsweep.files import EPISODES_JSONL, JOB_JSON, read_json, read_lines, trial_dir
from duqsweep.mailbox import Mailbox, WorkerConfig, WorkerExit
from duqsweep.processes import machine_id

BOTH = [Assignment(0, EPISODES), Assignment(1, EPISODES)]
pytestmark = pytest.mark.parametrize(
    "launcher", ["local", pytest.param("slurm", marks=pytest.mark.slurm)], indirect=True
)


@contextmanager
def controller(lab: Lab) -> Iterator[subprocess.Popen[bytes]]:
    """A controller that has begun both trials, in its own session as on its own terminal."""
    (lab.folder / "trials").rmdir()
    script = Path(__file__).parent / "light_controller.py"
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(script), lab.launcher, str(lab.folder)],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{script.parent}:{root}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Whoever runs these tests in the background of a shell has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until(lambda: all(episodes(lab, number) for number in range(2)))
        yield process
    finally:
        process.kill()
        process.communicate()


def episodes(lab: Lab, number: int) -> list[int]:
    return [line["i"] for line in read_lines(trial_dir(lab.folder, number) / EPISODES_JSONL)]


def reattached(lab: Lab) -> Dispatcher:
    dispatcher = lab.open()
    assert sorted(dispatcher.reattach(), key=lambda a: a.trial) == BOTH
    return dispatcher


def check_everything_was_done_once(lab: Lab, ended: list[Ended]) -> None:
    assert sorted(end.assignment.trial for end in ended) == [0, 1]
    assert all(end.failure is None for end in ended)
    for number in range(2):
        assert episodes(lab, number) == list(range(EPISODES))
        assert lab.visits(number) == 1
        assert read_json(trial_dir(lab.folder, number) / JOB_JSON)["attempts"] == 1


@pytest.mark.fault(
    "controller killed, workers live on", "the next controller takes its workers up again"
)
def test_kill_9_of_the_controller_loses_nothing_and_repeats_nothing(lab: Lab) -> None:
    with controller(lab) as process:
        process.kill()
        process.wait()
        dispatcher = reattached(lab)
        check_everything_was_done_once(lab, wait_for_ends(dispatcher, 2))
        assert len(mailboxes(lab)) == 2


def test_what_ended_while_no_controller_lived_is_told_by_the_next(lab: Lab) -> None:
    with controller(lab) as process:
        process.kill()
        process.wait()
    wait_until(lambda: all(box.worker_exit() == WorkerExit("idle", 1) for box in mailboxes(lab)))
    dispatcher = reattached(lab)
    check_everything_was_done_once(lab, dispatcher.poll())
    dispatcher.poll()
    assert lab.open().reattach() == []


@pytest.mark.fault("Ctrl-C at the terminal", "workers continue")
def test_ctrl_c_at_the_terminal_does_not_reach_the_workers(lab: Lab) -> None:
    with controller(lab) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10.0) == -signal.SIGINT
        assert process.stdout.read() == b""  # whoever reads the command's output sees its end
        dispatcher = reattached(lab)
        check_everything_was_done_once(lab, wait_for_ends(dispatcher, 2))


@pytest.mark.fault("controller killed after an end was reported", "the end is reported once more")
def test_an_end_that_was_not_followed_by_a_poll_is_told_again(lab: Lab) -> None:
    lab.trial(0)
    first = lab.open()
    first.submit(Assignment(0, 1))
    told = wait_for_ends(first, 1)
    second = lab.open()
    assert second.reattach() == [Assignment(0, 1)]
    assert second.poll() == told
    second.poll()
    assert lab.open().reattach() == []


@pytest.mark.fault("worker died while no controller ran", "its trial is retried")
def test_a_worker_that_died_meanwhile_is_a_failure_to_be_retried(lab: Lab) -> None:
    lab.trial(0, episode_s=0.1)
    lab.open().submit(Assignment(0, 500))
    wait_until(lambda: lab.visits(0) == 1)
    (box,) = mailboxes(lab)
    os.kill(box.heartbeat().pid, signal.SIGKILL)
    dispatcher = lab.open()
    assert dispatcher.reattach() == [Assignment(0, 500)]
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.retry) == ("lost", True)


def worker_config(folder: Path) -> WorkerConfig:
    """The configuration of a worker that was created an hour ago."""
    return WorkerConfig(
        id=folder.name,
        folder=str(folder),
        secret="5ec2e7",
        idle_s=60.0,
        timeout_min=60.0,
        signal_s=30.0,
        hang_min=60.0,
        reuse=True,
        created_at=time.time() - 3600.0,
        host=os.uname().nodename,
        machine=machine_id(),
    )


def test_what_was_given_to_a_worker_whose_job_was_never_submitted_goes_to_another(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "UNCLEAR_S", 3.0)
    lab.trial(0)
    box = Mailbox(lab.folder.resolve() / "workers" / "0001-abcdef")
    box.create(worker_config(box.folder))
    box.put(1, Assignment(0, 1))
    dispatcher = lab.open()
    assert dispatcher.reattach() == [Assignment(0, 1)]
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 1), None)]
    assert lab.visits(0) == 1
    assert len(mailboxes(lab)) == 2


def test_half_made_workers_are_ignored(lab: Lab) -> None:
    (lab.folder / "workers" / "0001-abcdef").mkdir(parents=True)
    assert lab.open().reattach() == []


def test_an_idle_worker_of_an_earlier_life_is_used_again(lab: Lab) -> None:
    for number in range(2):
        lab.trial(number)
        dispatcher = lab.open()
        dispatcher.reattach()
        dispatcher.submit(Assignment(number, 1))
        wait_for_ends(dispatcher, 1)
        dispatcher.close(end_jobs=False)
    assert len(mailboxes(lab)) == 1


def test_what_was_begun_in_another_folder_belongs_to_that_folder(lab: Lab) -> None:
    lab.trial(0, episode_s=1.0, part="twins")
    first = lab.open()
    first.turn_to("twins")
    first.submit(Assignment(0, 3))
    wait_until(lambda: any(box.heartbeat() for box in mailboxes(lab)))
    first.close(end_jobs=False)
    second = lab.open()
    assert second.reattach() == []  # among the sweep's own trials, nothing runs
    assert (first.capacity, second.capacity) == (2, 1)
    second.turn_to("twins")
    assert second.pending() == [Assignment(0, 3, "twins")]
    assert wait_for_ends(second, 1) == [Ended(Assignment(0, 3, "twins"), None)]
