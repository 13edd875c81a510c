"""What a trial says about the machine it ran on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from duqsweep.errors import EvaluationError
from duqsweep.worker.hardware import (
    check_kernel,
    describe_hardware,
    describe_versions,
    git_commit,
    resolve_device,
)


def test_a_folder_outside_a_repository_has_no_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None


def test_the_commit_is_the_one_checked_out(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True
        ).stdout.decode()

    git("init", "--quiet")
    git("commit", "--allow-empty", "--quiet", "-m", "first")
    assert git_commit(tmp_path) == git("log", "-1", "--format=%H").strip()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert resolve_device("auto") == "cpu"
    with pytest.raises(EvaluationError, match="torch sees no GPU"):
        resolve_device("cuda")


def test_a_cpu_runs_e4m3_and_no_integers() -> None:
    for kernel in ("fake", "loop", "fp8"):
        check_kernel(kernel, "cpu")
    with pytest.raises(EvaluationError, match=r"kernel=int8 needs a CUDA GPU.*sees no GPU"):
        check_kernel("int8", "cpu")


def test_a_gpu_before_hopper_runs_integers_and_no_e4m3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an A100")
    check_kernel("int8", "cuda")
    with pytest.raises(EvaluationError, match=r"kernel=fp8 needs.*9\.0.*an A100 has"):
        check_kernel("fp8", "cuda")


def test_hardware_and_versions_are_plain_json() -> None:
    hardware, versions = describe_hardware("cpu", threads=1), describe_versions()
    assert json.loads(json.dumps([hardware, versions])) == [hardware, versions]
    assert hardware["cores"] >= 1
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
