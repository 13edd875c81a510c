"""What only a cluster does to a job, and what SLURM refuses before anything runs."""

from __future__ import annotations

import os
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


def squeue(slurm: SlurmLab, field: str) -> list[str]:
    return slurm.run("squeue", "-h", "-o", field).split()


def one_running(lab: Lab, **changes: object) -> object:
    lab.trial(0, episode_s=0.1)
    dispatcher = lab.open(jobs=1, **changes)
    dispatcher.submit(Assignment(0, 500))
    wait_until(lambda: lab.visits(0) == 1)
    return dispatcher


def test_a_cancelled_job_is_told_and_not_retried(lab: Lab, slurm: SlurmLab) -> None:
    dispatcher = one_running(lab)
    slurm.run("scancel", mailboxes(lab)[0].job().job_id)
    (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.failure.kind, ended.failure.retry) == ("cancelled", False)


def test_a_job_cancelled_before_it_ran_is_told(lab: Lab, slurm: SlurmLab) -> None:
    lab.trial(0)
    later = {"begin": "now+1hour"}
    dispatcher = lab.open(jobs=1, additional_parameters=later)
    dispatcher.submit(Assignment(0, 1))
    slurm.run("scancel", mailboxes(lab)[0].job().job_id)
    (ended,) = wait_for_ends(dispatcher, 1)
    assert (ended.failure.kind, ended.failure.retry) == ("cancelled", False)
    assert lab.visits(0) == 0


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


def test_a_suspended_job_has_not_ended(lab: Lab, slurm: SlurmLab) -> None:
    dispatcher = one_running(lab)
    job_id = mailboxes(lab)[0].job().job_id
    slurm.run("scontrol", "suspend", job_id)
    wait_until(lambda: "SUSPENDED" in squeue(slurm, "%T"))
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
    wait_until(lambda: squeue(slurm, "%i") == [])


def test_ending_jobs_also_ends_those_that_wait(lab: Lab, slurm: SlurmLab) -> None:
    dispatcher = lab.open(additional_parameters={"begin": "now+1hour"})
    for number in range(2):
        lab.trial(number)
        dispatcher.submit(Assignment(number, 1))
    assert squeue(slurm, "%T").count("PENDING") == 2
    dispatcher.close(end_jobs=True)
    wait_until(lambda: squeue(slurm, "%i") == [])


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
