"""`--as-job` on a real cluster: the controller is a job, and is requeued until the sweep ends."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import light_sweep
import light_trials
import pytest
from light_lab import wait_until
from slurm_lab import SlurmLab

from duqsweep import exit_codes, files
from duqsweep.control.dispatch.controller_job import ControllerJob
from duqsweep.verbs import sweep as verb

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.parametrize("launcher", ["slurm"], indirect=True),
]
TRIALS, EPISODES = 8, 3
Start = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


@pytest.fixture
def start(
    launcher: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Start:
    """The command of one sweep with more words; its exit code and what it printed."""
    monkeypatch.setenv(light_trials.PLAYED, str(tmp_path / "played"))
    monkeypatch.chdir(tmp_path)
    words = [
        *light_sweep.WORDS,
        "enqueue=[reference]",
        f"dir={folder}",
        "launcher=slurm",
        "launcher.controller.mem_gb=1",
        f"budget.trials={TRIALS}",
        f"budget.episodes_per_trial={EPISODES}",
    ]

    def run(*more: str, verb: str | None = None) -> tuple[int, str, str]:
        line = [verb, str(folder), *more] if verb else [*words, *more]
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, light_sweep.__file__, *line])
        capfd.readouterr()
        code = light_sweep.main(line)
        return code, *capfd.readouterr()

    return run


def job_of(slurm: SlurmLab) -> tuple[str, str]:
    """Id and state of the latest controller's job."""
    lines = slurm.run("squeue", "-h", "-t", "all", "-o", "%i|%T|%j").splitlines()
    jobs = [line.split("|") for line in lines if "sweep-controller" in line]
    job_id, state, _ = max(jobs, key=lambda job: int(job[0]))
    return job_id, state


def played(tmp_path: Path) -> list[tuple[str, int]]:
    return [(trial, i) for trial, i in files.read_lines(tmp_path / "played")]


@pytest.mark.fault(
    "controller is a job, and is told that its time ends",
    "it hands over, requeues itself and goes on; its workers work meanwhile",
)
@pytest.mark.fault(
    "controller is a job, and SLURM requeues it", "it goes on; its workers work meanwhile"
)
def test_a_controller_that_hands_over_and_is_requeued_ends_the_sweep_as_any_other(
    start: Start, slurm: SlurmLab, folder: Path, tmp_path: Path
) -> None:
    code, out, err = start("--as-job")
    job_id, _ = job_of(slurm)
    assert (code, err) == (0, "")
    assert f"is SLURM job {job_id}\n" in out
    wait_until(lambda: len(played(tmp_path)) >= 1, 60.0)

    log = folder / "controller" / "log.txt"
    slurm.run("scancel", "--signal=USR2", "--batch", job_id)  # as before the end of its time
    wait_until(lambda: "handed over: jobs continue" in log.read_text(), 30.0)
    wait_until(lambda: job_of(slurm) == (job_id, "PENDING"))
    state = json.loads(start("--json", verb="status")[1])["controller"]
    assert (state["job_id"], state["state"], state["log"]) == (job_id, "queued", str(log))
    for again in (("--as-job",), ()):
        code, out, err = start(*again)
        assert (code, out, err.count("\n")) == (exit_codes.CONFIG, "", 1)
        assert re.search(f"has a controller: SLURM job {job_id}, (queued|running)", err)

    wait_until(lambda: job_of(slurm) == (job_id, "RUNNING"), 60.0)
    before = len(played(tmp_path))
    wait_until(lambda: len(played(tmp_path)) > before, 60.0)
    slurm.run("scontrol", "requeue", job_id)
    wait_until(lambda: job_of(slurm) == (job_id, "COMPLETED"), 90.0)
    assert "Restarts=2" in slurm.run("scontrol", "show", "job", job_id)

    results = [files.read_json(p / files.RESULT_JSON) for p in (folder / "trials").iterdir()]
    assert [result["outcome"] for result in results] == ["complete"] * TRIALS
    counts = Counter(played(tmp_path))
    assert set(counts.values()) == {1}
    assert len(counts) == TRIALS * EPISODES
    front = files.read_json(folder / files.FRONT_JSON)
    assert front["counts"]["complete"] == TRIALS
    assert "8 complete · 24 episodes" in log.read_text()


def test_a_controller_that_waits_is_stopped_and_one_that_slurm_refuses_leaves_nothing(
    start: Start, slurm: SlurmLab, folder: Path
) -> None:
    code, out, err = start("--as-job", "launcher.controller.partition=fast")
    assert (code, out, err.count("\n")) == (exit_codes.CONFIG, "", 1)
    assert "the controller: sbatch refuses the job" in err
    assert "--partition=fast" in err
    later = "launcher.controller.additional_parameters.begin=now+1hour"
    assert start("--as-job", later)[0] == 0
    copy = shutil.copytree(folder, folder.with_name("copy"))
    assert ControllerJob(copy).view() is None  # it names a job of another folder
    ControllerJob(copy).cancel()
    assert job_of(slurm)[1] == "PENDING"
    code, out, err = start(verb="stop")
    assert (code, err) == (0, "")
    assert "was to be resumed by SLURM job" in out
    wait_until(lambda: job_of(slurm)[1] == "CANCELLED")
    assert verb.refuse_second(folder) is None
