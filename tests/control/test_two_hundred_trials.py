"""Two hundred trials and twenty random faults end with the front of the undisturbed sweep."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from stub_worker import DAMAGES, StubDispatcher, config_for, make_light

from duqsweep import files
from duqsweep.assignment import Assignment, Ended, failure
from duqsweep.control.config.space import Space
from duqsweep.verbs import sweep as verb

TRIALS, EPISODES, FAULTS, SEED = 200, 2, 20, 12


class Killed(BaseException):
    """Stands for SIGKILL of the controller: nothing of its run is left but the files."""


def dies(kind) -> Callable[[Faulty, Assignment], Ended | None]:
    return lambda jobs, one: Ended(one, failure(kind, f"{kind} it was"))


def dies_after_its_work(kind) -> Callable[[Faulty, Assignment], Ended | None]:
    def die(jobs: Faulty, one: Assignment) -> Ended:
        jobs.evaluate(one)
        return Ended(one, failure(kind, f"{kind} it was"))

    return die


def dies_half_way(jobs: Faulty, one: Assignment) -> Ended:
    jobs.evaluate(Assignment(one.trial, 1))
    (jobs.folder(one) / files.RESULT_JSON).unlink()
    with (jobs.folder(one) / files.EPISODES_JSONL).open("a") as file:
        file.write('{"i": 1, "sui')  # killed while it wrote
    return Ended(one, failure("lost", "its job is gone"))


def says_done_without_a_result(jobs: Faulty, one: Assignment) -> Ended:
    return Ended(one, None)


def result_comes_late(jobs: Faulty, one: Assignment) -> Ended:
    jobs.late.append(one)
    return Ended(one, failure("cancelled", "scancel"))


def kill_before(jobs: Faulty, one: Assignment) -> Ended:
    raise Killed


def kill_after(jobs: Faulty, one: Assignment) -> Ended:
    jobs.evaluate(one)
    raise Killed


def damage(name: str, how: str) -> Callable[[Faulty, Assignment], Ended | None]:
    """A file of a finished trial, or of the sweep, is damaged; the controller is killed."""

    def spoil(jobs: Faulty, one: Assignment) -> Ended:
        done = files.trial_dir(jobs._dir, one.trial // 2)
        path = (done if name in files.TRIAL_FILES else jobs._dir) / name
        if path.exists():
            DAMAGES[how](path)
        raise Killed

    return spoil


def remove_a_folder(jobs: Faulty, one: Assignment) -> Ended:
    folder = files.trial_dir(jobs._dir, one.trial // 2)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    raise Killed


def disk(code: int) -> Callable[[Faulty, Assignment], Ended | None]:
    def fill(jobs: Faulty, one: Assignment) -> Ended | None:
        jobs.disk.append(code)
        return Ended(one, jobs.evaluate(one))

    return fill


CATALOGUE = {
    **{kind: dies(kind) for kind in ("node", "preempted", "timeout", "cancelled", "hung", "setup")},
    **{f"{kind} once": dies(kind) for kind in ("oom", "crash", "lost")},
    "preempted after its work": dies_after_its_work("preempted"),
    "crash after its work": dies_after_its_work("crash"),
    "half way": dies_half_way,
    "no result": says_done_without_a_result,
    "late result": result_comes_late,
    "kill before": kill_before,
    "kill after": kill_after,
    "folder removed": remove_a_folder,
    **{
        f"{name} {how}": damage(name, how)
        for name in (*files.TRIAL_FILES, files.LEDGER_JSON, files.FRONT_JSON, files.STUDY_LOG)
        for how in DAMAGES
    },
    **{
        errno.errorcode[code]: disk(code)
        for code in (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO)
    },
}


class Faulty(StubDispatcher):
    """Its worker and its machine fail at given trials, once each."""

    def __init__(self, sweep_dir: Path, faults: dict[int, str], disk: list[int]) -> None:
        super().__init__(sweep_dir)
        self.faults, self.disk = faults, disk
        self.late: list[Assignment] = []

    def folder(self, assignment: Assignment) -> Path:
        return files.trial_dir(self._dir, assignment.trial)

    def poll(self) -> list[Ended]:
        for one in self.late:
            self.evaluate(one)
        self.late.clear()
        ended = []
        for one in list(self._pending):
            fault = self.faults.pop(one.trial, None)
            end = CATALOGUE[fault](self, one) if fault else Ended(one, self.evaluate(one))
            self._pending.remove(one)
            ended.append(end)
        return ended


def play(folder: Path, faults: dict[int, str], monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Run the sweep, and start it again whenever it was killed, until all trials are finished."""
    words = [f"budget.trials={TRIALS}", f"budget.episodes_per_trial={EPISODES}"]
    words.append(
        "+space={quant.weight_bits.default:'choice(2,3,4,8)',quant.smoothing:'interval(0,1)',"
        "policy.num_steps:'int(interval(1,10))'}"
    )
    config = config_for(folder, *words)
    space = Space.from_config(config)
    folder.mkdir(parents=True)
    pending: list[int] = []

    def fail(descriptor: int) -> None:
        if pending:
            code = pending.pop()
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", fail)
    monkeypatch.setattr(files, "PAUSE_S", 0.0)
    opened = "duqsweep.control.dispatch.dispatcher.open_dispatcher"
    monkeypatch.setattr(opened, lambda launcher, at: Faulty(at, faults, pending))
    monkeypatch.setattr(verb, "MLFLOW_WAIT_S", 0.0)
    played: Counter = Counter()
    for _ in range(FAULTS + 3):
        run = verb._Run(config, space)
        try:
            run.main()
        except Killed:
            continue
        finally:
            played.update(run._dispatcher.played)
        finished = list(folder.glob(f"{files.TRIALS_DIR}/*/{files.RESULT_JSON}"))
        if not faults and len(finished) >= TRIALS:
            return played
    raise AssertionError("the sweep does not end")


@pytest.mark.fault(
    "twenty random ones of these in 200 trials",
    "the undisturbed run's front.json",
    repeated="damaged ones",
)
def test_twenty_random_faults_leave_the_front_as_it_is(tmp_path, monkeypatch, capsys) -> None:
    make_light(monkeypatch)
    undisturbed, disturbed = tmp_path / "a" / "odd", tmp_path / "b" / "odd"
    play(undisturbed, {}, monkeypatch)
    draw = random.Random(SEED)
    kinds = draw.sample(sorted(CATALOGUE), FAULTS)
    faults = dict(zip(draw.sample(range(2, TRIALS), FAULTS), kinds, strict=True))
    played = play(disturbed, dict(faults), monkeypatch)
    front = (disturbed / files.FRONT_JSON).read_text()
    assert front == (undisturbed / files.FRONT_JSON).read_text(), faults
    # Only an episode whose record was damaged is played again.
    damaged = sum("episodes.jsonl" in kind or "spec" in kind or "folder" in kind for kind in kinds)
    assert sum(n - 1 for n in played.values()) <= EPISODES * damaged
