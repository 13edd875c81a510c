"""When a job counts as dead: real files, and a clock that the test sets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from duqsweep.control.dispatch.evidence import ABSENT_S, HELD_S, QUIET_S, Evidence
from duqsweep.control.dispatch.launch import JobState, JobView
from duqsweep.files import EPISODES_JSONL, TRIAL_LOCK, append_line
from duqsweep.mailbox import ALIVE_JSON, Mailbox
from duqsweep.worker.lock import exclusive

HANG_S = 3600.0


@dataclass
class Scene:
    """A worker, its trial, and what the launcher says of its job every two seconds."""

    box: Mailbox
    trial: Path
    now: float = 0.0
    beats: int = 0

    def __post_init__(self) -> None:
        self.evidence = Evidence(self.box, lambda: self.now)
        self.beat()

    def beat(self) -> None:
        self.beats += 1
        path = self.box.folder / ALIVE_JSON
        path.touch()
        os.utime(path, (self.beats, self.beats))

    def watch(self, seconds: float, view: JobView, beats: bool = False) -> float | None:
        """Seconds after which the job counts as dead; None: it does not."""
        start = self.now
        while self.now - start < seconds:
            self.now += 2.0
            if beats:
                self.beat()
            self.evidence.note(view)
            if self.evidence.is_dead(self.trial, HANG_S):
                return self.now - start
        return None


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(Mailbox(tmp_path), tmp_path)


@pytest.mark.parametrize("state", ["ended", "absent"])
def test_a_worker_that_beats_is_alive_whatever_the_scheduler_says(
    scene: Scene, state: JobState
) -> None:
    assert scene.watch(1000.0, JobView(state), beats=True) is None


@pytest.mark.parametrize(("state", "after_s"), [("ended", QUIET_S), ("absent", ABSENT_S)])
def test_a_silent_worker_is_dead_when_the_scheduler_says_so_for_long_enough(
    scene: Scene, state: JobState, after_s: float
) -> None:
    scene.watch(100.0, JobView("running"), beats=True)
    dead_after_s = scene.watch(1000.0, JobView(state))
    assert dead_after_s is not None
    assert after_s <= dead_after_s <= after_s + 4.0


def test_a_long_silence_before_does_not_make_one_empty_answer_an_end(scene: Scene) -> None:
    scene.watch(500.0, JobView("running"))
    dead_after_s = scene.watch(1000.0, JobView("absent"))
    assert dead_after_s is not None
    assert dead_after_s >= ABSENT_S


def test_an_end_that_is_seen_once_is_not_believed(scene: Scene) -> None:
    scene.watch(100.0, JobView("running"))
    assert scene.watch(2.0, JobView("ended")) is None
    assert scene.watch(100.0, JobView("running")) is None


def test_a_process_that_is_gone_is_dead_at_once(scene: Scene) -> None:
    assert scene.watch(10.0, JobView("ended", is_proven=True)) == 2.0


def test_new_episodes_are_a_sign_of_life(scene: Scene) -> None:
    for i in range(100):
        append_line(scene.trial / EPISODES_JSONL, {"i": i})
        assert scene.watch(4.0, JobView("ended")) is None


def test_another_assignment_is_no_sign_of_life(scene: Scene, tmp_path: Path) -> None:
    scene.watch(100.0, JobView("running"))
    for trial_dir in (None, tmp_path / "another", scene.trial):
        assert scene.evidence.quiet_s(trial_dir) >= 100.0


def test_a_held_lock_is_a_sign_of_life_until_the_worker_counts_as_hung(scene: Scene) -> None:
    scene.watch(10.0, JobView("running"))
    with exclusive(scene.trial / TRIAL_LOCK, 0.0):
        dead_after_s = scene.watch(2 * HANG_S, JobView("ended"))
    assert dead_after_s is not None
    assert dead_after_s >= HANG_S - 20.0
    assert scene.evidence.is_dead(scene.trial, HANG_S)


@pytest.mark.parametrize("state", ["queued", "held", "suspended"])
def test_a_job_that_waits_is_not_hung(scene: Scene, state: JobState) -> None:
    scene.watch(2 * HANG_S, JobView(state))
    assert not scene.evidence.is_hung(scene.trial, HANG_S)
    scene.watch(HANG_S - 10.0, JobView("running"))
    assert not scene.evidence.is_hung(scene.trial, HANG_S)
    scene.watch(20.0, JobView("running"))
    assert scene.evidence.is_hung(scene.trial, HANG_S)


def test_a_job_is_held_after_a_while(scene: Scene) -> None:
    scene.watch(HELD_S - 10.0, JobView("held"))
    assert not scene.evidence.is_held()
    scene.watch(20.0, JobView("held"))
    assert scene.evidence.is_held()
