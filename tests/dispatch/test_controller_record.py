"""A controller's job whose record is damaged is still known, by its script; needs no cluster."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch.controller_job import RECORD, ControllerJob
from duqsweep.control.dispatch.launch import SubmissionError
from duqsweep.control.dispatch.slurm import SCRIPT
from duqsweep.errors import ConfigError
from duqsweep.verbs.as_job import refuse_second

SQUEUE = """
name=$(sed -n 's/^#SBATCH --job-name=//p' {script} | tr -d "'")
echo "7|PENDING||Priority|$name"
"""


@pytest.fixture
def sweep_dir(tmp_path: Path) -> Path:
    return tmp_path / "a sweep"


@pytest.fixture
def job(sweep_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ControllerJob:
    """A job that was submitted and waits; `scancel` notes each order in `orders`."""
    sweep_dir.mkdir()
    kept, programs = tmp_path / "taken.sh", tmp_path / "bin"
    programs.mkdir()
    refuses = f"[ -e {tmp_path}/refuses ] && echo 'Invalid partition' >&2 && exit 1"
    for name, lines in (
        ("sbatch", f'{refuses}\ncp "$1" {kept}; echo Submitted batch job 7'),
        ("squeue", SQUEUE.format(script=kept)),
        ("scancel", f"echo $1 >> {tmp_path}/orders"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{lines}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    job = ControllerJob(sweep_dir)
    job.submit(LauncherConfig(name="slurm"), "true")
    return job


DAMAGES = {
    "truncated": '{"folder": "/a',
    "another version": '{"folder": "/a", "key": 1}',
    "binary": "\x00\x01",
    "missing": None,
}


def damage(job: ControllerJob, how: str) -> None:
    content = DAMAGES[how]
    if content is None:
        (job.folder / RECORD).unlink()
    else:
        (job.folder / RECORD).write_text(content)


@pytest.mark.fault(
    "record of the controller's job truncated, binary, missing, of another version",
    "the job is known by its script: a second controller is refused, `stop` ends it",
)
@pytest.mark.parametrize("how", sorted(DAMAGES))
def test_its_job_is_seen_refuses_a_second_controller_and_can_be_ended(
    job: ControllerJob, sweep_dir: Path, tmp_path: Path, how: str
) -> None:
    whole = job.view()
    damage(job, how)
    assert job.view() == whole
    assert whole is not None
    assert (whole.job_id, whole.state) == ("7", "queued")
    with pytest.raises(ConfigError, match="has a controller: SLURM job 7, queued"):
        refuse_second(sweep_dir)
    job.cancel()
    assert (tmp_path / "orders").read_text() == "7\n"


def test_a_copy_of_the_folder_does_not_have_the_job(job: ControllerJob, tmp_path: Path) -> None:
    damage(job, "truncated")
    copy = ControllerJob(shutil.copytree(tmp_path / "a sweep", tmp_path / "copy"))
    assert copy.view() is None
    copy.cancel()
    assert not (tmp_path / "orders").exists()


def test_a_job_that_was_refused_leaves_nothing_to_take_for_one(
    job: ControllerJob, tmp_path: Path
) -> None:
    (tmp_path / "refuses").touch()
    with pytest.raises((ConfigError, SubmissionError)):
        job.submit(LauncherConfig(name="slurm"), "true")
    assert {path.name for path in job.folder.iterdir()} & {RECORD, SCRIPT} == set()
    assert job.view() is None
