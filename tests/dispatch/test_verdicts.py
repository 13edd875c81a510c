"""Jobs that look dead and are not, workers that hang, files that become visible late."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends, wait_until
from light_work import ORPHANS

from duqsweep.control.config.sweep_config import as_yaml, load
from duqsweep.control.dispatch import member
from duqsweep.control.dispatch.dispatcher import Assignment, Ended
from duqsweep.control.sweep_format import FORMAT, FORMAT_KEY
from duqsweep.files import (
    EPISODES_JSONL,
    IDENTITY_JSON,
    RESULT_JSON,
    SWEEP_YAML,
    read_lines,
    write_json,
)
from duqsweep.processes import start_ticks
from duqsweep.verbs import stop

pytestmark = pytest.mark.parametrize(
    "launcher", ["local", pytest.param("slurm", marks=pytest.mark.slurm)], indirect=True
)
SIX_S = 0.1  # in minutes


def orphan(folder: Path) -> int:
    (line,) = read_lines(folder / ORPHANS)
    return int(line["pid"])


@pytest.mark.fault("evaluation hangs", "ended after `launcher.hang_min`, resumed elsewhere")
def test_an_evaluation_that_hangs_is_ended_with_all_it_started_and_resumes_elsewhere(
    lab: Lab,
) -> None:
    folder = lab.trial(0, "hang")
    dispatcher = lab.open(hang_min=SIX_S)
    dispatcher.submit(Assignment(0, 2))
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.fault) == ("hung", "machine")
    assert "did nothing for 0.1 minutes" in ended.failure.message
    (visit,) = read_lines(folder / "visits.jsonl")
    for pid in (visit["pid"], orphan(folder)):
        wait_until(lambda pid=pid: start_ticks(pid) is None)
    dispatcher.submit(Assignment(0, 2))
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 2), None)]
    assert len(mailboxes(lab)) == 2


@pytest.mark.fault("episodes far slower than usual", "waits for them")
def test_slow_episodes_are_no_hang(lab: Lab) -> None:
    lab.trial(0, episode_s=3.5)
    dispatcher = lab.open(hang_min=SIX_S)
    dispatcher.submit(Assignment(0, 3))
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 3), None)]


@pytest.mark.fault("worker stands still", "ended, its trial resumes")
def test_a_worker_that_stands_still_is_ended_by_the_dispatcher(lab: Lab) -> None:
    folder = lab.trial(0, episode_s=0.1)
    dispatcher = lab.open(hang_min=SIX_S)
    dispatcher.submit(Assignment(0, 2000))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) >= 1)
    (visit,) = read_lines(folder / "visits.jsonl")
    (box,) = mailboxes(lab)
    for pid in (visit["pid"], box.heartbeat().pid):
        os.kill(pid, signal.SIGSTOP)
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert ended.failure.kind == "hung"
    for pid in (visit["pid"], box.heartbeat().pid):
        wait_until(lambda pid=pid: start_ticks(pid) is None)


@pytest.mark.fault(
    "a crashed evaluation leaves an orphan", "the orphan is ended, the trial resumes"
)
def test_an_orphan_of_a_crashed_evaluation_is_ended_and_holds_no_lock(lab: Lab) -> None:
    folder = lab.trial(0, "crash")
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 2))
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert ended.failure.kind == "crash"
    wait_until(lambda: start_ticks(orphan(folder)) is None)
    dispatcher.submit(Assignment(0, 2))
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 2), None)]


@pytest.mark.fault("files visible seconds after the outcome", "awaited, never overwritten")
@pytest.mark.parametrize("name", [RESULT_JSON, EPISODES_JSONL])
def test_files_that_appear_after_the_outcome_are_awaited(lab: Lab, name: str) -> None:
    folder = lab.trial(0)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 2))
    (box,) = mailboxes(lab)
    wait_until(lambda: box.outcome(1) is not None)
    (folder / name).rename(folder / "cached elsewhere")  # as a network file system's cache shows it
    for _ in range(10):
        assert dispatcher.poll() == []
        time.sleep(0.1)
    (folder / "cached elsewhere").rename(folder / name)
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 2), None)]


@pytest.mark.fault("files of an outcome never appear", "counts as lost, the trial is retried")
def test_files_that_never_appear_are_no_result(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "VISIBLE_S", 1.0)
    folder = lab.trial(0)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 2))
    (box,) = mailboxes(lab)
    wait_until(lambda: box.outcome(1) is not None)
    (folder / RESULT_JSON).unlink()
    (ended,) = wait_for_ends(dispatcher, 1)
    assert ended.failure is not None
    assert ended.failure.kind == "lost"
    dispatcher.submit(Assignment(0, 2))
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 2), None)]


def test_the_outcome_of_a_worker_that_left_is_awaited(lab: Lab) -> None:
    lab.trial(0)
    dispatcher = lab.open(reuse=False)
    dispatcher.submit(Assignment(0, 2))
    (box,) = mailboxes(lab)
    wait_until(lambda: box.worker_exit() is not None)
    outcome = box.folder / "done" / "000001.json"
    outcome.rename(box.folder / "cached elsewhere")
    for _ in range(10):
        assert dispatcher.poll() == []
        time.sleep(0.1)
    (box.folder / "cached elsewhere").rename(outcome)
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 2), None)]


def test_a_trial_whose_lock_is_held_waits_for_whoever_evaluates_it(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.trial(0, episode_s=0.3)
    late = lab.open()
    late.submit(Assignment(0, 10))
    wait_until(lambda: lab.visits(0) == 1)
    (box,) = mailboxes(lab)
    lab.opened.remove(late)
    shutil.move(box.folder, lab.folder / "elsewhere")  # nothing knows of this worker any more
    dispatcher = lab.open()
    assert dispatcher.reattach() == []
    dispatcher.submit(Assignment(0, 10))
    assert "trial 0 waits: an earlier job still evaluates it" in caplog.text
    assert mailboxes(lab) == []
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 10), None)]
    numbers = [line["i"] for line in read_lines(lab.folder / "trials" / "0000" / EPISODES_JSONL)]
    assert numbers == list(range(10))


RENAMED = ["unshare", "--uts", "sh", "-c", 'hostname another; exec "$@"', "sh"]
REATTACH = """
import sys, time
from pathlib import Path
from light_lab import Lab, wait_for_ends
from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch.dispatcher import open_launcher
from duqsweep.control.dispatch.pool import SubmititDispatcher
config = LauncherConfig(name=sys.argv[1], jobs=2, mem_gb=0.5)
dispatcher = SubmititDispatcher(open_launcher(config), config, Path(sys.argv[2]))
assert dispatcher.reattach()
print(wait_for_ends(dispatcher, 1))
dispatcher.close(end_jobs=False)
"""


@pytest.mark.fault("host gets another name", "nothing ends")
def test_a_host_that_changes_its_name_ends_nothing(lab: Lab, launcher: str) -> None:
    if launcher == "slurm" or subprocess.run(["unshare", "--uts", "true"]).returncode:
        pytest.skip("needs a name of its own for a host, without a SLURM that depends on it")
    lab.trial(0, episode_s=0.5)
    lab.open().submit(Assignment(0, 10))
    wait_until(lambda: lab.visits(0) == 1)
    here = Path(__file__).parent
    done = subprocess.run(
        [*RENAMED, sys.executable, "-c", REATTACH, launcher, str(lab.folder)],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parents[1]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(Ended(Assignment(0, 10), None)) in done.stdout
    assert lab.visits(0) == 1


@pytest.mark.fault("launcher answers late", "the loop continues")
def test_a_held_up_answer_of_the_launcher_does_not_hold_up_the_loop(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.trial(0, episode_s=0.1)
    dispatcher = lab.open()
    slow = dispatcher.launcher.views

    def views(boxes):
        time.sleep(3.0)
        return slow(boxes)

    monkeypatch.setattr(dispatcher.launcher, "views", views)
    dispatcher.submit(Assignment(0, 10))
    slowest = 0.0
    ended: list[Ended] = []
    while not ended:
        start = time.monotonic()
        ended = dispatcher.poll()
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.05)
    assert ended == [Ended(Assignment(0, 10), None)]
    assert slowest < 1.0


def test_stop_without_a_controller_ends_the_jobs(
    lab: Lab, launcher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lab.trial(0, episode_s=0.1)
    first = lab.open()
    first.submit(Assignment(0, 2000))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) >= 1)
    first.close(end_jobs=False)
    words = ["+sweep=smoke", f"launcher={launcher}", f"dir={lab.folder}"]
    (lab.folder / SWEEP_YAML).write_text(as_yaml(load(words)))
    write_json(lab.folder / IDENTITY_JSON, {FORMAT_KEY: FORMAT})
    assert stop.main([str(lab.folder)]) == 0
    assert "has no controller: 1 job was ended" in capsys.readouterr().out
    (box,) = mailboxes(lab)
    wait_until(lambda: start_ticks(box.heartbeat().pid) is None)
    assert lab.open().reattach() == []


@pytest.mark.fault("evaluation suspended (SIGSTOP)", "waits for it")
def test_a_suspended_evaluation_did_not_hang(
    lab: Lab, launcher: str, request: pytest.FixtureRequest
) -> None:
    if launcher != "slurm":
        pytest.skip("only SLURM suspends jobs")
    slurm = request.getfixturevalue("slurm")
    folder = lab.trial(0, episode_s=0.1)
    dispatcher = lab.open(hang_min=SIX_S)
    dispatcher.submit(Assignment(0, 2000))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) >= 1)
    (box,) = mailboxes(lab)
    slurm.run("scontrol", "suspend", box.job().job_id)
    deadline = time.monotonic() + 25.0
    while time.monotonic() < deadline:
        assert dispatcher.poll() == []
        time.sleep(0.1)
    slurm.run("scontrol", "resume", box.job().job_id)
    before = len(read_lines(folder / EPISODES_JSONL))
    wait_until(lambda: len(read_lines(folder / EPISODES_JSONL)) > before + 5)
    dispatcher.stop(0, "asked to")
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert lab.visits(0) == 1
