"""The order to end a controller that is a job, where SLURM does not take it; needs no cluster."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from duqsweep.codec import encode
from duqsweep.control.dispatch.controller_job import RECORD, ControllerJob, ControllerRecord
from duqsweep.errors import DispatchError
from duqsweep.files import write_json


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ControllerJob:
    """A job that waits; `scancel` notes each order in `orders`, and fails while `deaf` exists."""
    job = ControllerJob(tmp_path / "sweep")
    job.folder.mkdir(parents=True)
    record = ControllerRecord(str(job.folder), "secret", time.time(), "7")
    write_json(job.folder / RECORD, encode(record))
    programs = tmp_path / "bin"
    programs.mkdir()
    row = f"7|PENDING||Priority|{record.job_name}"
    for name, line in (
        ("squeue", f"echo '{row}'"),
        ("scancel", f"echo $1 >> {tmp_path}/orders; ! [ -e {tmp_path}/deaf ]"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("duqsweep.control.dispatch.slurm.CANCEL_WAITS_S", (0.01, 0.01))
    return job


def test_one_order_is_enough_where_it_is_taken(job: ControllerJob, tmp_path: Path) -> None:
    job.cancel()
    assert (tmp_path / "orders").read_text() == "7\n"


def test_an_order_that_is_not_taken_is_repeated_and_then_told(
    job: ControllerJob, tmp_path: Path
) -> None:
    (tmp_path / "deaf").touch()
    with pytest.raises(DispatchError, match=r"did not take the order to end .* job 7"):
        job.cancel()
    assert (tmp_path / "orders").read_text() == "7\n7\n7\n"
