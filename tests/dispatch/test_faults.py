"""The evaluation, a worker or a job dies; the rest must survive."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends, wait_until
from light_work import cannot_start

from duqsweep.control.dispatch.dispatcher import Assignment
from duqsweep.files import EPISODES_JSONL, read_lines
from duqsweep.mailbox import WorkerExit
from duqsweep.processes import start_ticks

pytestmark = pytest.mark.parametrize(
    "launcher", ["local", pytest.param("slurm", marks=pytest.mark.slurm)], indirect=True
)


@pytest.mark.fault(
    "evaluation crashes, exits, is out of memory", "its cause is recorded, the worker continues"
)
@pytest.mark.parametrize(
    ("mishap", "kind", "words"),
    [
        ("exit", "crash", "exit code 3"),
        ("segfault", "crash", "killed by SIGSEGV"),
        ("segfault of the simulator", "node", "killed by SIGSEGV"),
        ("kill", "lost", "killed by SIGKILL"),
        ("terminate", "lost", "killed by SIGTERM"),
    ],
)
def test_a_dead_evaluation_is_told_by_whose_doing_it_was_and_its_worker_goes_on(
    lab: Lab, mishap: str, kind: str, words: str
) -> None:
    folder = lab.trial(0, mishap)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 1))
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert ended.failure.kind == kind
    assert words in ended.failure.message
    dispatcher.submit(Assignment(0, 1))
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert len(mailboxes(lab)) == 1
    assert len(read_lines(folder / EPISODES_JSONL)) == 1


@pytest.mark.fault(
    "worker killed, with its evaluation", "another worker resumes at the next episode"
)
def test_a_killed_worker_takes_its_evaluation_along_and_is_replaced(lab: Lab) -> None:
    folder = lab.trial(0, "kill the worker")
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 1))
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.fault) == ("lost", "machine")
    assert ended.failure.retry
    (visit,) = read_lines(folder / "visits.jsonl")
    wait_until(lambda: start_ticks(visit["pid"]) is None)
    dispatcher.submit(Assignment(0, 1))
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert len(mailboxes(lab)) == 2


def test_a_job_that_cannot_start_is_told_with_what_it_said(lab: Lab) -> None:
    lab.trial(0)
    dispatcher = lab.open(cannot_start)
    dispatcher.submit(Assignment(0, 1))
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.fault) == ("setup", "machine")
    assert "no such node software" in ended.failure.message


def test_workers_share_the_work_and_stay(lab: Lab) -> None:
    dispatcher = lab.open()
    for first in (0, 2, 4):
        for number in (first, first + 1):
            lab.trial(number, episode_s=0.1)
            dispatcher.submit(Assignment(number, 2))
        wait_for_ends(dispatcher, 2)
    assert [lab.visits(number) for number in range(6)] == [1] * 6
    assert len(mailboxes(lab)) == 2


def test_without_reuse_every_assignment_has_a_job_of_its_own(lab: Lab) -> None:
    dispatcher = lab.open(reuse=False)
    for number in range(2):
        lab.trial(number)
        dispatcher.submit(Assignment(number, 1))
        wait_for_ends(dispatcher, 1)
    served = WorkerExit("served", 1)
    wait_until(lambda: [box.worker_exit() for box in mailboxes(lab)] == [served, served])


def test_an_idle_worker_leaves_and_the_next_assignment_finds_another(lab: Lab) -> None:
    dispatcher = lab.open(idle_s=0.3)
    for number in range(2):
        lab.trial(number)
        dispatcher.submit(Assignment(number, 1))
        assert wait_for_ends(dispatcher, 1)[0].failure is None
        wait_until(lambda: mailboxes(lab)[-1].worker_exit() == WorkerExit("idle", 1))
    assert len(mailboxes(lab)) == 2


def test_what_a_leaving_worker_did_not_take_goes_to_another(lab: Lab) -> None:
    lab.trial(0)
    lab.trial(1)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 1))
    wait_for_ends(dispatcher, 1)
    (leaving,) = mailboxes(lab)
    pid = leaving.heartbeat().pid
    os.kill(pid, signal.SIGSTOP)
    dispatcher.submit(Assignment(1, 1))
    leaving.leave("idle", 1)  # as if it had written this a moment before it saw the assignment
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    os.kill(pid, signal.SIGCONT)
    assert lab.visits(1) == 1
    assert len(mailboxes(lab)) == 2


def test_stop_ends_a_trial_after_its_episode(lab: Lab) -> None:
    folder = lab.trial(0, episode_s=0.2)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 500))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) >= 1)
    dispatcher.stop(0, "asked to")
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert len(read_lines(folder / EPISODES_JSONL)) < 20


def test_ending_the_jobs_leaves_no_process_and_is_no_failure_later(lab: Lab) -> None:
    folder = lab.trial(0, episode_s=0.1)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 500))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) >= 1)
    (visit,) = read_lines(folder / "visits.jsonl")
    (box,) = mailboxes(lab)
    dispatcher.close(end_jobs=True)
    wait_until(lambda: start_ticks(visit["pid"]) is None, 5.0)
    wait_until(lambda: start_ticks(box.heartbeat().pid) is None, 5.0)
    assert (folder / EPISODES_JSONL).read_bytes().endswith(b"\n")
    later = lab.open()
    assert later.reattach() == []
    later.submit(Assignment(0, len(read_lines(folder / EPISODES_JSONL)) + 1))
    assert wait_for_ends(later, 1)[0].failure is None
    numbers = [line["i"] for line in read_lines(folder / EPISODES_JSONL)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.fault("worker's time limit comes", "another job resumes the trial")
@pytest.mark.parametrize(("timeout_min", "kind"), [(1, "timeout"), (60, "preempted")])
def test_a_job_that_is_told_of_its_end_leaves_its_episode(
    lab: Lab, timeout_min: int, kind: str
) -> None:
    folder = lab.trial(0, episode_s=0.1)
    dispatcher = lab.open(timeout_min=timeout_min)
    dispatcher.submit(Assignment(0, 500))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) >= 1)
    os.kill(mailboxes(lab)[0].heartbeat().pid, signal.SIGUSR2)
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.retry) == (kind, True)


@pytest.mark.fault("worker terminated (SIGTERM)", "counts as preempted, resumed at once")
def test_a_terminated_worker_was_preempted(lab: Lab) -> None:
    folder = lab.trial(0, episode_s=0.1)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 500))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) >= 1)
    os.kill(mailboxes(lab)[0].heartbeat().pid, signal.SIGTERM)
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.fault) == ("preempted", "machine")


def test_a_worker_says_what_it_does(lab: Lab) -> None:
    lab.trial(7, episode_s=0.5)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(7, 2))
    wait_until(lambda: mailboxes(lab)[0].heartbeat() is not None)
    (box,) = mailboxes(lab)
    wait_until(lambda: box.heartbeat().assignment == Assignment(7, 2))
    assert (box.heartbeat().node is not None) == (lab.launcher == "slurm")
    wait_for_ends(dispatcher, 1)
    assert box.heartbeat().assignment is None


def test_the_log_of_a_worker_names_its_trials(lab: Lab) -> None:
    lab.trial(5)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(5, 1))
    wait_for_ends(dispatcher, 1)
    (box,) = mailboxes(lab)
    logs = [Path(path).read_text() for path in (box.folder / "job").glob("*_log.*")]
    assert any("trial 5 up to episode 1" in text for text in logs)
