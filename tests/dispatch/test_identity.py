"""Copied, moved or planted folders never touch the jobs of another sweep."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends, wait_until

from duqsweep.control.dispatch.dispatcher import Assignment, Ended
from duqsweep.files import EPISODES_JSONL, read_json, read_lines, write_json
from duqsweep.mailbox import Mailbox
from duqsweep.processes import PROOF, has_proof, start_ticks

pytestmark = pytest.mark.parametrize(
    "launcher", ["local", pytest.param("slurm", marks=pytest.mark.slurm)], indirect=True
)


@pytest.fixture
def running(lab: Lab) -> Mailbox:
    """A worker that evaluates trial 0 for a long time."""
    lab.trial(0, episode_s=0.1)
    lab.open().submit(Assignment(0, 2000))
    wait_until(lambda: lab.visits(0) == 1)
    return mailboxes(lab)[0]


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user that has nothing to do with any sweep."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def elsewhere(lab: Lab, folder: Path) -> Lab:
    """The same launcher on another folder."""
    other = Lab.__new__(Lab)
    other.launcher, other.folder, other.opened = lab.launcher, folder, lab.opened
    return other


def plays_on(lab: Lab, number: int = 0) -> bool:
    path = lab.folder / "trials" / f"{number:04d}" / EPISODES_JSONL
    before = len(read_lines(path))
    wait_until(lambda: len(read_lines(path)) > before + 10)
    return True


@pytest.mark.fault("folder of a running sweep copied and started", "the original's jobs continue")
def test_a_copy_of_a_running_sweep_ends_none_of_its_jobs(
    lab: Lab, running: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    copy = elsewhere(lab, lab.folder.with_name("copy"))
    shutil.copytree(lab.folder, copy.folder)
    dispatcher = copy.open()
    assert dispatcher.reattach() == []
    assert "is left alone: it was made by others or elsewhere" in caplog.text
    assert dispatcher.close(end_jobs=True) == 0
    assert plays_on(lab)
    assert not running.asked_to_leave()


def test_even_a_forged_place_does_not_give_a_copy_the_jobs(lab: Lab, running: Mailbox) -> None:
    """As in an archive that was packed with the path at which it will be unpacked."""
    copy = elsewhere(lab, lab.folder.with_name("copy"))
    shutil.copytree(lab.folder, copy.folder)
    (box,) = mailboxes(copy)
    path = box.folder.resolve() / "worker.json"
    write_json(path, read_json(path) | {"folder": str(path.parent)})
    dispatcher = copy.open()
    assert dispatcher.reattach() == [Assignment(0, 2000)]
    dispatcher.close(end_jobs=True)
    assert plays_on(lab)


def test_a_planted_worker_does_not_end_an_unrelated_process(
    lab: Lab, running: Mailbox, stranger: subprocess.Popen[bytes]
) -> None:
    for path, change in [
        (running.folder / "alive.json", {"pid": stranger.pid,
                                         "start_ticks": start_ticks(stranger.pid)}),
        (running.folder / "job.json", {"job_id": str(stranger.pid)}),
    ]:  # fmt: skip
        write_json(path, read_json(path) | change)
    dispatcher = lab.open()
    dispatcher.reattach()
    dispatcher.close(end_jobs=True)
    assert stranger.poll() is None


def test_a_planted_worker_does_not_end_an_unrelated_job(
    lab: Lab, launcher: str, running: Mailbox, request: pytest.FixtureRequest
) -> None:
    if launcher != "slurm":
        pytest.skip("only SLURM has jobs")
    slurm = request.getfixturevalue("slurm")
    answer = slurm.run(
        "sbatch", "--job-name=duqsweep-theirs-0001-abcdef", "--output=/dev/null", "--wrap=sleep 60"
    )
    job_id = answer.split()[-1]
    path = running.folder / "job.json"
    write_json(path, read_json(path) | {"job_id": job_id})
    dispatcher = lab.open()
    dispatcher.reattach()
    dispatcher.close(end_jobs=True)
    wait_until(lambda: start_ticks(running.heartbeat().pid) is None)
    assert slurm.run("squeue", "-h", "-j", job_id, "-o", "%T").strip() in ("RUNNING", "PENDING")


def test_a_worker_of_another_user_is_left_alone(lab: Lab, running: Mailbox) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(running.folder, 12345, 12345)
    dispatcher = lab.open()
    assert dispatcher.reattach() == []
    os.chown(running.folder, 0, 0)


@pytest.mark.fault("worker's file damaged", "left alone, its trial goes to another")
def test_a_damaged_worker_is_left_alone_and_said(
    lab: Lab, running: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    text = (running.folder / "worker.json").read_text()
    (running.folder / "worker.json").write_text(text[: len(text) // 2])
    dispatcher = lab.open()
    assert dispatcher.reattach() == []
    assert "worker.json is not valid JSON" in caplog.text
    (running.folder / "worker.json").write_text(text)


@pytest.mark.fault("folder moved", "resumes there")
def test_a_sweep_that_was_moved_resumes_in_its_new_place(lab: Lab, running: Mailbox) -> None:
    os.kill(running.heartbeat().pid, signal.SIGKILL)
    wait_until(lambda: start_ticks(running.heartbeat().pid) is None)
    lab.opened.clear()
    moved = elsewhere(lab, lab.folder.rename(lab.folder.with_name("moved")))
    dispatcher = moved.open()
    assert dispatcher.reattach() == []
    walked = len(read_lines(moved.folder / "trials" / "0000" / EPISODES_JSONL))
    dispatcher.submit(Assignment(0, walked + 1))
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, walked + 1), None)]


def test_what_others_could_plant_is_not_unpickled(lab: Lab, tmp_path: Path) -> None:
    lab.trial(0)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 1))
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 1), None)]
    assert list(lab.folder.rglob("*.pkl")) == []


def test_nobody_else_can_write_a_workers_folder(lab: Lab) -> None:
    old = os.umask(0)
    try:
        lab.trial(0)
        dispatcher = lab.open()
        dispatcher.submit(Assignment(0, 1))
        assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 1), None)]
    finally:
        os.umask(old)
    (box,) = mailboxes(lab)
    folders = [lab.folder / "workers", box.folder, *box.folder.iterdir()]
    assert {oct(path.stat().st_mode & 0o777) for path in folders if path.is_dir()} == {"0o700"}


def test_a_process_proves_whose_it_is(
    lab: Lab, launcher: str, running: Mailbox, stranger: subprocess.Popen[bytes]
) -> None:
    proof = running.worker_config().proof
    assert has_proof(running.heartbeat().pid, proof) == (launcher == "local")
    assert not has_proof(stranger.pid, proof)
    assert PROOF not in os.environ
