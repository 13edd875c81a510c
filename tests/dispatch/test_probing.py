"""The probe of `doctor`, sent as workers are."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from light_lab import wait_until
from slurm_lab import SlurmLab

from duqsweep.control.config.sweep_config import SweepConfig, compose
from duqsweep.control.dispatch.probing import probe_findings
from duqsweep.verbs import doctor

ALL = ["job", "shared folder", "clock", "import", "checkpoint", "compiler"]

on = pytest.mark.parametrize


def config_for(launcher: str, folder: Path, *more: str) -> SweepConfig:
    words = ["name=doctor", f"dir={folder}/sweep", "enqueue=[reference]", f"launcher={launcher}"]
    return compose([*words, "launcher.mem_gb=1", *more])


def jobs(slurm: SlurmLab) -> list[str]:
    return [line for line in slurm.run("squeue", "-h", "-o", "%j").split() if "probe" in line]


@pytest.mark.slurm
@on("launcher", ["slurm"], indirect=True)
def test_a_node_that_can_do_all_is_told_so(launcher: str, tmp_path: Path) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}/x"
        config = config_for(launcher, tmp_path)
        found = list(probe_findings(config, tmp_path, (address,), 120.0, said.append))
    assert [finding.name for finding in found] == [*ALL, "submitting", "addresses", "rendering"]
    assert [finding.text for finding in found if not finding.is_ok] == []
    texts = {finding.name: finding.text for finding in found}
    assert re.match(r"slurm job \d+ runs on n[12], ", texts["job"])
    assert "duq_mini draws agentview, wrist by " in texts["rendering"]
    assert "secret" not in texts["addresses"]
    assert re.fullmatch(r"job \d+ is submitted", said[0])


@on("launcher", ["local"], indirect=True)
def test_what_is_missing_is_named_and_the_other_checks_run(launcher: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"postgresql+psycopg2://me:secret@127.0.0.1:{server.getsockname()[1]}/x"
    setup = "launcher.setup=['export CXX=/none PATH=']"
    suite = ["suite=recorded", "budget.episodes_per_trial=1"]
    checkpoint = f"policy.checkpoint={tmp_path}/none"
    config = config_for(launcher, tmp_path, setup, checkpoint, *suite)
    found = {f.name: f for f in probe_findings(config, tmp_path, (closed,), 120.0, print)}
    assert [*found] == [*ALL, "addresses", "rendering"]
    wrong = {name: finding.text for name, finding in found.items() if not finding.is_ok}
    assert set(wrong) == {"checkpoint", "compiler", "addresses"}
    assert f"there is none at {tmp_path}/none" in wrong["checkpoint"]
    assert "launcher.setup" in wrong["compiler"]
    assert "Connection refused" in wrong["addresses"]
    assert "secret" not in wrong["addresses"]
    assert not found["addresses"].is_needed


@on("launcher", ["local"], indirect=True)
def test_a_job_that_dies_at_once_is_told_with_its_last_words(
    launcher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = "launcher.setup=['echo no module python >&2', 'exit 3']"
    assert doctor._probe(config_for(launcher, tmp_path, setup), 60.0) == ["job"]
    *_, finding, where = capsys.readouterr().out.splitlines()
    assert finding.startswith("[FAIL] job: the job ended before its first word: nodes must see ")
    assert "no module python" in finding
    assert Path(where.split()[-1]).parent == tmp_path


@pytest.mark.slurm
@on("launcher", ["slurm"], indirect=True)
def test_a_job_that_does_not_start_is_cancelled_at_the_limit_and_by_ctrl_c(
    launcher: str, slurm: SlurmLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = "launcher.additional_parameters.begin=now+1hour"
    config = config_for(launcher, tmp_path, later)
    assert doctor._probe(config, 3.0) == ["job"]
    out = capsys.readouterr().out
    assert "the job is queued (BeginTime)" in out
    assert "[FAIL] job: queued (BeginTime) after 0.05 minutes: ask for less" in out
    wait_until(lambda: jobs(slurm) == [])

    def ctrl_c(line: str) -> None:
        if "queued" in line:
            assert len(jobs(slurm)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(probe_findings(config, tmp_path, (), 60.0, ctrl_c))
    wait_until(lambda: jobs(slurm) == [])
