"""The files between a dispatcher and a worker, tested without either."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from duqsweep.assignment import Assignment, failure
from duqsweep.errors import SpecError
from duqsweep.mailbox import Heartbeat, Mailbox, Outcome, WorkerConfig, WorkerExit

ID = "0001-abcdef"
PLACE = f"/sweeps/x/workers/{ID}"
TERMS = WorkerConfig(
    ID, PLACE, "5ec2e7", 60.0, 60.0, 30.0, 60.0, True, 1.5e9, "login", "boot pid:[1]"
)


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    box = Mailbox(tmp_path / "workers" / TERMS.id)
    box.create(TERMS)
    return box


def test_every_record_comes_back_as_it_was_written(box: Mailbox) -> None:
    assert box.worker_config() == TERMS
    alive = Heartbeat(4, 5, "host", "boot pid:[1]", None, "12", 1.5e9, Assignment(3, 7))
    box.set_alive(alive)
    assert box.heartbeat() == alive
    outcome = Outcome(Assignment(3, 7), None, failure("oom", "too big"))
    box.finish(1, outcome)
    assert box.outcome(1) == outcome
    assert box.worker_exit() is None
    box.leave("idle", 1)
    assert box.worker_exit() == WorkerExit("idle", 1)


def test_assignments_are_claimed_in_order_and_once(box: Mailbox) -> None:
    for number in (1, 2):
        box.put(number, Assignment(number, 9))
    assert box.claim() == (1, Assignment(1, 9))
    assert box.claim() == (2, Assignment(2, 9))
    assert box.claim() is None
    assert not box.take_back(1)


def test_what_was_taken_back_cannot_be_claimed(box: Mailbox) -> None:
    box.put(1, Assignment(0, 9))
    assert box.take_back(1)
    assert box.claim() is None
    assert box.open_numbers() == []
    assert box.last_number() == 1


def test_an_assignment_is_open_until_the_sweep_was_told(box: Mailbox) -> None:
    box.put(1, Assignment(0, 9))
    assert box.open_numbers() == [1]
    box.claim()
    assert (box.open_numbers(), box.interrupted_numbers()) == ([1], [1])
    box.finish(1, Outcome(Assignment(0, 9), "complete", None))
    assert (box.open_numbers(), box.interrupted_numbers()) == ([1], [])
    box.acknowledge(1)
    assert box.open_numbers() == []
    assert box.assignment(1) == Assignment(0, 9)


def test_a_damaged_record_is_refused_and_named(box: Mailbox) -> None:
    (box.folder / "inbox" / "000001.json").write_text('{"trial": "x", "until_episode": 1}')
    with pytest.raises(SpecError, match="trial must be int"):
        box.claim()


def _claim_all(folder: Path, start: float, claimed: multiprocessing.Queue) -> None:
    time.sleep(max(0.0, start - time.time()))
    box, mine = Mailbox(folder), []
    while (found := box.claim()) is not None:
        mine.append(found[0])
    claimed.put(mine)


def test_racing_sides_share_assignments_without_loss_or_duplicate(box: Mailbox) -> None:
    numbers = list(range(1, 201))
    for number in numbers:
        box.put(number, Assignment(number, 1))
    context = multiprocessing.get_context("fork")
    queue, start = context.Queue(), time.time() + 0.2
    workers = [context.Process(target=_claim_all, args=(box.folder, start, queue)) for _ in "ab"]
    for worker in workers:
        worker.start()
    time.sleep(max(0.0, start - time.time()))
    taken_back = [number for number in reversed(numbers) if box.take_back(number)]
    claimed = queue.get(timeout=20.0) + queue.get(timeout=20.0)
    for worker in workers:
        worker.join()
    assert taken_back
    assert claimed
    assert sorted(taken_back + claimed) == numbers
