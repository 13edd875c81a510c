"""The mailbox under any order of what its two sides do, against a model of it in memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from duqsweep.assignment import Assignment, failure
from duqsweep.mailbox import Mailbox, Outcome, WorkerConfig

ID = "0001-abcdef"
TERMS = WorkerConfig(
    ID,
    f"/sweeps/x/workers/{ID}",
    "5ec2e7",
    60.0,
    60.0,
    30.0,
    60.0,
    True,
    1.5e9,
    "login",
    "boot pid:[1]",
)


class Sides(RuleBasedStateMachine):
    """A dispatcher that offers, takes back and acknowledges; a worker that claims and finishes.

    Each rule reads the folder anew, as a side does that was killed and started again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.offered: dict[int, Assignment] = {}
        self.inbox: set[int] = set()
        self.claimed: set[int] = set()
        self.outcomes: dict[int, Outcome] = {}
        self.settled: set[int] = set()

    @property
    def box(self) -> Mailbox:
        return Mailbox(self.root / "workers" / TERMS.id)

    @initialize()
    def create(self) -> None:
        self.box.create(TERMS)

    @rule(trial=st.integers(0, 9), until=st.integers(0, 9))
    def put(self, trial: int, until: int) -> None:
        number = self.box.last_number() + 1
        assert number not in self.offered
        self.offered[number] = Assignment(trial, until)
        self.inbox.add(number)
        self.box.put(number, self.offered[number])

    @rule()
    def claim(self) -> None:
        found = self.box.claim()
        if not self.inbox:
            assert found is None
            return
        oldest = min(self.inbox)
        assert found == (oldest, self.offered[oldest])
        self.inbox.remove(oldest)
        self.claimed.add(oldest)

    @precondition(lambda self: self.offered)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.offered)))
        assert self.box.take_back(number) == (number in self.inbox)
        self.inbox.discard(number)

    @precondition(lambda self: self.claimed - set(self.outcomes))
    @rule(data=st.data(), succeeds=st.booleans())
    def finish(self, data: st.DataObject, succeeds: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.claimed - set(self.outcomes))))
        assignment = self.offered[number]
        cause = None if succeeds else failure("crash", "segmentation fault")
        self.outcomes[number] = Outcome(assignment, "complete" if succeeds else None, cause)
        self.box.finish(number, self.outcomes[number])

    @precondition(lambda self: self.claimed - self.settled)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Also without an outcome: the dispatcher judges what a killed worker left."""
        number = data.draw(st.sampled_from(sorted(self.claimed - self.settled)))
        self.settled.add(number)
        self.box.acknowledge(number)

    @invariant()
    def the_folder_agrees(self) -> None:
        box = self.box
        assert box.last_number() == max(self.offered, default=0)
        assert box.open_numbers() == sorted((self.inbox | self.claimed) - self.settled)
        unfinished = self.claimed - set(self.outcomes) - self.settled
        assert box.interrupted_numbers() == sorted(unfinished)
        for number, assignment in self.offered.items():
            assert box.assignment(number) == assignment
            assert box.outcome(number) == self.outcomes.get(number)

    def teardown(self) -> None:
        shutil.rmtree(self.root)


TestSides = Sides.TestCase
TestSides.settings = settings(max_examples=25, stateful_step_count=20)
