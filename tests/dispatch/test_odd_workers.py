"""Damaged files in a worker's folder end nothing: what cannot be read counts as missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends, wait_until

from duqsweep.assignment import Assignment, Ended
from duqsweep.control.dispatch import member
from duqsweep.control.dispatch.dispatcher import Dispatcher
from duqsweep.control.dispatch.states import job_states
from duqsweep.files import EPISODES_JSONL, read_lines

pytestmark = pytest.mark.parametrize("launcher", ["local"], indirect=True)
EPISODES = 20
WORK = Assignment(0, EPISODES)


def at_work(lab: Lab, **changes: object) -> tuple[Dispatcher, Path]:
    lab.trial(0, episode_s=0.1)
    dispatcher = lab.open(jobs=1, **changes)
    dispatcher.submit(WORK)
    wait_until(lambda: lab.visits(0) == 1)
    (box,) = mailboxes(lab)
    return dispatcher, box.folder


def walked(lab: Lab) -> list[int]:
    return [line["i"] for line in read_lines(lab.folder / "trials" / "0000" / EPISODES_JSONL)]


@pytest.mark.fault(
    "worker's alive.json, job.json, worker.json or assignment damaged while it works",
    "said once, counts as missing; the worker goes on",
)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("alive.json", b'{"pid": '),
        ("job.json", b"\x80\xff\x00"),
        ("claimed/000001.json", b"null"),
        ("worker.json", b""),
    ],
)
def test_a_worker_goes_on_and_its_outcome_counts(
    lab: Lab, caplog: pytest.LogCaptureFixture, name: str, content: bytes
) -> None:
    dispatcher, folder = at_work(lab)
    (folder / name).write_bytes(content)
    job_states(dispatcher.config, lab.folder)  # as `status` asks, with another reader
    caplog.clear()
    assert wait_for_ends(dispatcher, 1) == [Ended(WORK, None)]
    assert walked(lab) == list(range(EPISODES))
    assert len([line for line in caplog.messages if "counts as missing" in line]) <= 1


@pytest.mark.fault(
    "worker's outcome or last word damaged", "counts as lost, the trial is given again"
)
@pytest.mark.parametrize("name", ["done/000001.json", "ended.json"])
def test_an_unreadable_end_is_no_end_and_the_trial_is_given_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(member, "VISIBLE_S", 1.0)
    dispatcher, folder = at_work(lab, idle_s=1.0)
    wait_until(lambda: (folder / "ended.json").exists())
    (folder / "done" / "000001.json").write_bytes(b'{"outcome": ')
    (folder / name).write_bytes(b"\x80\xff")
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.retry) == ("lost", True)
    dispatcher.submit(WORK)
    assert wait_for_ends(dispatcher, 1) == [Ended(WORK, None)]
    assert walked(lab) == list(range(EPISODES))


@pytest.mark.fault(
    "assignment damaged, controller started again",
    "the trial is given again when the first evaluation has ended",
)
def test_an_assignment_that_nobody_can_read_is_given_again_after_a_restart(lab: Lab) -> None:
    dispatcher, folder = at_work(lab)
    dispatcher.close(end_jobs=False)
    (folder / "claimed" / "000001.json").write_bytes(b'{"trial": ')
    again = lab.open(jobs=1)
    assert again.reattach() == []
    again.submit(WORK)  # waits until the first evaluation has freed the trial
    assert wait_for_ends(again, 1) == [Ended(WORK, None)]
    assert walked(lab) == list(range(EPISODES))
