"""What only a cluster does to a job, and what SLURM refuses before anything runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends, wait_until
from slurm_lab import SlurmLab

from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch import jobstate
from duqsweep.control.dispatch.dispatcher import Assignment, open_dispatcher
from duqsweep.errors import ConfigError, DispatchError

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.parametrize("launcher", ["slurm"], indirect=True),
]


def one_running(lab: Lab, **changes: object) -> object:
    lab.trial(0, episode_s=0.1)
    dispatcher = lab.open(jobs=1, **changes)
    dispatcher.submit(Assignment(0, 500))
    wait_until(lambda: lab.visits(0) == 1)
    return dispatcher


@pytest.mark.fault("job cancelled by a person", "its trial stays open for the next start")
def test_a_cancelled_job_is_told_and_not_retried(lab: Lab, slurm: SlurmLab) -> None:
    dispatcher = one_running(lab)
    slurm.run("scancel", mailboxes(lab)[0].job().job_id)
    (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.failure.kind, ended.failure.retry) == ("cancelled", False)


@pytest.mark.fault("pending job cancelled", "its trial stays open for the next start")
def test_a_job_cancelled_before_it_ran_is_told(lab: Lab, slurm: SlurmLab) -> None:
    lab.trial(0)
    later = {"begin": "now+1hour"}
    dispatcher = lab.open(jobs=1, additional_parameters=later)
    dispatcher.submit(Assignment(0, 1))
    slurm.run("scancel", mailboxes(lab)[0].job().job_id)
    (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.failure.kind, ended.failure.retry) == ("cancelled", False)
    assert lab.visits(0) == 0


@pytest.mark.fault("job preempted by SLURM", "resumed at once")
def test_a_preempted_job_is_told_and_may_be_given_again(lab: Lab, slurm: SlurmLab) -> None:
    dispatcher = one_running(lab, partition="low")
    filler = ["--exclusive", "--nodes=2", "--partition=high", "--output=/dev/null"]
    slurm.run("sbatch", *filler, "--wrap=sleep 1")
    (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.failure.kind, ended.failure.retry) == ("preempted", True)


def test_a_job_over_its_memory_is_told_as_such(lab: Lab) -> None:
    lab.trial(0, "eat")
    dispatcher = lab.open(jobs=1, mem_gb=0.2)
    dispatcher.submit(Assignment(0, 1))
    (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.failure.kind, ended.failure.retry) == ("oom", True)


@pytest.mark.fault("job suspended by SLURM", "waits for it")
def test_a_suspended_job_has_not_ended(lab: Lab, slurm: SlurmLab) -> None:
    dispatcher = one_running(lab)
    job_id = mailboxes(lab)[0].job().job_id
    slurm.run("scontrol", "suspend", job_id)
    wait_until(lambda: "SUSPENDED" in slurm.living("%T"))
    seen = jobstate.SlurmJobs()
    for _ in range(3):
        (view,) = seen.views(mailboxes(lab)).values()
        assert view.state == "suspended"
    slurm.run("scontrol", "resume", job_id)
    dispatcher.stop(0, "asked to")
    assert wait_for_ends(dispatcher, 1)[0].failure is None


def test_jobs_are_found_by_name_when_their_id_was_lost(lab: Lab, slurm: SlurmLab) -> None:
    one_running(lab)
    (box,) = mailboxes(lab)
    (box.folder / "job.json").unlink()
    dispatcher = lab.open(jobs=1)
    assert dispatcher.reattach() == [Assignment(0, 500)]
    dispatcher.close(end_jobs=True)
    wait_until(lambda: slurm.living() == [])


def test_ending_jobs_also_ends_those_that_wait(lab: Lab, slurm: SlurmLab) -> None:
    dispatcher = lab.open(additional_parameters={"begin": "now+1hour"})
    for number in range(2):
        lab.trial(number)
        dispatcher.submit(Assignment(number, 1))
    assert slurm.living("%T").count("PENDING") == 2
    dispatcher.close(end_jobs=True)
    wait_until(lambda: slurm.living() == [])


@pytest.mark.parametrize("failures", [1, 9])
def test_an_order_to_end_jobs_is_repeated_while_slurm_gives_no_answer(
    failures: int,
    lab: Lab,
    slurm: SlurmLab,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lab.trial(0)
    dispatcher = lab.open(jobs=1, additional_parameters={"begin": "now+1hour"})
    dispatcher.submit(Assignment(0, 1))
    (job_id,) = slurm.living()
    silent = tmp_path / "bin" / "squeue"
    silent.parent.mkdir()
    real = shutil.which("squeue")
    count = tmp_path / "count"
    silent.write_text(
        f"#!/bin/sh\necho >> {count}\n"
        f'[ $(wc -l < {count}) -gt {failures} ] && exec {real} "$@"\nexit 1\n'
    )
    silent.chmod(0o755)
    monkeypatch.setattr("duqsweep.control.dispatch.slurm.CANCEL_WAITS_S", (0.1, 0.1))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{silent.parent}:{os.environ['PATH']}")
        dispatcher.close(end_jobs=True)
    is_told = "did not take the order to end the jobs of 1 worker(s)" in caplog.text
    if failures == 1:
        wait_until(lambda: slurm.living() == [])
        assert not is_told
    else:
        assert slurm.living() == [job_id]
        assert is_told
        slurm.run("scancel", job_id)


def test_one_look_at_all_jobs_is_one_command(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    real = subprocess.run(["which", "squeue"], capture_output=True, text=True, check=True).stdout
    counting = tmp_path / "bin" / "squeue"
    counting.parent.mkdir()
    counting.write_text(f'#!/bin/sh\necho >> {calls}\nexec {real.strip()} "$@"\n')
    counting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{counting.parent}:{os.environ['PATH']}")
    dispatcher = lab.open(jobs=4)
    for number in range(4):
        lab.trial(number)
        dispatcher.submit(Assignment(number, 1))
    wait_for_ends(dispatcher, 4)
    boxes = mailboxes(lab)
    before = len(calls.read_text().splitlines())
    assert len(jobstate.SlurmJobs().views(boxes)) == 4
    assert len(calls.read_text().splitlines()) == before + 1


def test_a_silent_controller_ends_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = one_running(lab)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        assert jobstate.SlurmJobs().views(mailboxes(lab)) == {}
    assert "squeue gives no answer" in caplog.text
    dispatcher.stop(0, "asked to")
    assert wait_for_ends(dispatcher, 1)[0].failure is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": "fast"}, r"launcher.partition=fast, this cluster has \['high', 'low'\]"),
        ({"constraint": "h100"}, "Invalid feature specification"),
        ({"cpus_per_task": 99}, "not available"),
        ({"jobs": 0}, "launcher.jobs must say how many"),
        ({"additional_parameters": {"job_name": "mine"}}, "'job-name'"),
        ({"additional_parameters": {"array": "0-9"}}, "'array'"),
    ],
)
def test_what_slurm_will_never_run_is_refused_at_once(
    lab: Lab, changes: dict[str, object], words: str
) -> None:
    settings = {"name": "slurm", "jobs": 1, "mem_gb": 0.5} | changes
    with pytest.raises(ConfigError, match=words):
        open_dispatcher(LauncherConfig(**settings), lab.folder)
    assert mailboxes(lab) == []


def test_a_cluster_that_is_down_is_told_as_such(lab: Lab, slurm: SlurmLab, tmp_path: Path) -> None:
    conf = slurm.conf.read_text().replace("SlurmctldPort=", "SlurmctldPort=1\n#")
    conf = conf.replace("MessageTimeout=5", "MessageTimeout=1")
    (tmp_path / "slurm.conf").write_text(conf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
        with pytest.raises(DispatchError, match="SLURM does not answer"):
            open_dispatcher(LauncherConfig(name="slurm", jobs=1), lab.folder)
