"""What every dispatcher promises, tested on real processes and a real SLURM."""

from __future__ import annotations

import pytest
from light_lab import Lab, mailboxes, wait_for_ends

from duqsweep.control.dispatch.dispatcher import Assignment, Ended
from duqsweep.errors import DispatchError
from duqsweep.files import JOB_JSON, LOG_TXT, RESULT_JSON, STOP, read_json


def test_a_success_is_told_once_with_its_result_and_job_on_disk(lab: Lab) -> None:
    folder = lab.trial(3)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(3, 2))
    assert dispatcher.pending() == [Assignment(3, 2)]
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(3, 2), None)]
    assert dispatcher.pending() == []
    assert dispatcher.poll() == []
    assert read_json(folder / RESULT_JSON)["episodes"] == 2
    job = read_json(folder / JOB_JSON)
    assert (job["launcher"], job["until_episode"], job["attempts"]) == (lab.launcher, 2, 1)


def test_a_paused_trial_goes_on_where_it_was(lab: Lab) -> None:
    folder = lab.trial(0)
    dispatcher = lab.open()
    for until in (2, 5):
        dispatcher.submit(Assignment(0, until))
        wait_for_ends(dispatcher, 1)
    assert read_json(folder / RESULT_JSON)["episodes"] == 5
    assert read_json(folder / JOB_JSON)["attempts"] == 2


def test_a_policys_fault_is_a_result_and_no_failure(lab: Lab) -> None:
    folder = lab.trial(0, "policy fault")
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 1))
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert read_json(folder / RESULT_JSON)["outcome"] == "failed"


@pytest.mark.parametrize(
    ("mishap", "kind", "retry", "words"),
    [
        ("raise", "crash", True, "a bug outside of the evaluation"),
        ("memory", "oom", True, "MemoryError"),
        ("node", "node", True, "the renderer is gone"),
    ],
)
def test_an_exception_is_told_by_kind_and_logged(
    lab: Lab, mishap: str, kind: str, retry: bool, words: str
) -> None:
    folder = lab.trial(0, mishap)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 1))
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.retry) == (kind, retry)
    assert words in ended.failure.message
    assert words in (folder / LOG_TXT).read_text()


def test_a_failed_assignment_can_be_given_again(lab: Lab) -> None:
    folder = lab.trial(0, "raise")
    dispatcher = lab.open()
    for fails in (True, False):
        dispatcher.submit(Assignment(0, 1))
        assert (wait_for_ends(dispatcher, 1)[0].failure is not None) == fails
    assert read_json(folder / JOB_JSON)["attempts"] == 2


def test_more_than_the_capacity_is_refused(lab: Lab) -> None:
    dispatcher = lab.open()
    for number in range(dispatcher.capacity):
        lab.trial(number)
        dispatcher.submit(Assignment(number, 1))
    lab.trial(99)
    with pytest.raises(DispatchError, match="may run at once"):
        dispatcher.submit(Assignment(99, 1))
    ended = wait_for_ends(dispatcher, dispatcher.capacity)
    assert sorted(end.assignment.trial for end in ended) == list(range(dispatcher.capacity))
    dispatcher.submit(Assignment(99, 1))
    wait_for_ends(dispatcher, 1)
    assert lab.visits(99) == 1


def test_trials_of_another_folder_are_for_the_same_workers(lab: Lab) -> None:
    own, twin = lab.trial(0), lab.trial(0, part="twins")
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 1))
    wait_for_ends(dispatcher, 1)
    workers = mailboxes(lab)
    dispatcher.turn_to("twins")
    dispatcher.submit(Assignment(0, 2))
    assert dispatcher.pending() == [Assignment(0, 2, "twins")]
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 2, "twins"), None)]
    assert [read_json(folder / RESULT_JSON)["episodes"] for folder in (own, twin)] == [1, 2]
    assert mailboxes(lab) == workers


def test_stopping_what_has_not_begun_withdraws_it(lab: Lab) -> None:
    lab.trial(0)
    # A SLURM job waits in the queue; a local worker is not that fast to start.
    later = {"begin": "now+1hour"} if lab.launcher == "slurm" else {}
    dispatcher = lab.open(additional_parameters=later)
    dispatcher.submit(Assignment(0, 1))
    dispatcher.stop(0, "asked to")
    assert dispatcher.pending() == []
    assert dispatcher.poll() == []
    assert lab.visits(0) == 0
    assert lab.open().reattach() == []


def test_submitting_removes_an_old_stop(lab: Lab) -> None:
    folder = lab.trial(0)
    dispatcher = lab.open()
    (folder / STOP).touch()
    dispatcher.submit(Assignment(0, 1))
    wait_for_ends(dispatcher, 1)
    assert read_json(folder / RESULT_JSON)["outcome"] == "complete"
