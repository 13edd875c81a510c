"""What the local launcher takes from the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends

from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch.devices import cuda_devices, device_lines
from duqsweep.control.dispatch.dispatcher import Assignment, open_dispatcher, open_launcher
from duqsweep.control.dispatch.inline import InlineDispatcher
from duqsweep.errors import ConfigError
from duqsweep.files import trial_dir

NVIDIA_SMI = "#!/bin/sh\nprintf '0\\n1\\n2\\n'\n"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def fake_gpus(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    program = folder / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_number_every_core_gets_a_worker() -> None:
    launcher = open_launcher(LauncherConfig(name="local"))
    assert launcher.capacity == len(os.sched_getaffinity(0))
    assert open_launcher(LauncherConfig(name="local", jobs=7)).capacity == 7


def test_every_gpu_gets_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_gpus(monkeypatch, tmp_path)
    assert cuda_devices() == ["0", "1", "2"]
    assert open_launcher(LauncherConfig(name="local")).capacity == 3


def test_only_the_gpus_that_were_given_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, MIG-5f")
    assert cuda_devices() == ["3", "MIG-5f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert cuda_devices() == []


@pytest.mark.parametrize("launcher", ["local"], indirect=True)
def test_workers_see_one_gpu_each(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    dispatcher = lab.open(jobs=0)
    for number in range(2):
        lab.trial(number, episode_s=0.3)
        dispatcher.submit(Assignment(number, 1))
    wait_for_ends(dispatcher, 2)
    seen = [
        variable
        for box in mailboxes(lab)
        for variable in Path(f"/proc/{box.heartbeat().pid}/environ").read_bytes().split(b"\0")
        if variable.startswith(b"CUDA_VISIBLE_DEVICES=")
    ]
    assert sorted(seen) == [b"CUDA_VISIBLE_DEVICES=4", b"CUDA_VISIBLE_DEVICES=6"]


def test_slurm_without_its_programs_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sh = tmp_path / "sh"
    sh.symlink_to(shutil.which("sh") or "/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="launcher=slurm needs sbatch on PATH"):
        open_dispatcher(LauncherConfig(name="slurm", jobs=1), tmp_path)


def test_an_unknown_launcher_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="inline, local or slurm, got 'cloud'"):
        open_dispatcher(LauncherConfig(name="cloud"), tmp_path)


IMPORT = f"{sys.executable} -c 'import robosuite.utils.binding_utils'"
SHOW = "echo $CUDA_VISIBLE_DEVICES/$MUJOCO_EGL_DEVICE_ID"


def in_worker(gpu: str, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in the environment of a worker with this GPU."""
    return subprocess.run(
        ["bash", "-c", "\n".join([*device_lines(gpu), command])],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("gpu", "seen"),
    [
        ("0", "0/0"),
        ("1", "1/1"),
        ("MIG-GPU-8e1f/1/0", "MIG-GPU-8e1f/1/0/"),
        ("GPU-8e1f", "GPU-8e1f/"),
        ("", "/"),
    ],
)
def test_a_worker_has_its_own_device_whatever_its_launcher_was_given(gpu: str, seen: str) -> None:
    given = {"MUJOCO_EGL_DEVICE_ID": "0", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert in_worker(gpu, SHOW, **given).stdout == f"{seen}\n"


@pytest.mark.parametrize("gpu", ["1", "MIG-GPU-8e1f/1/0"])
def test_robosuite_takes_the_device_of_the_second_worker(gpu: str) -> None:
    given = {"MUJOCO_EGL_DEVICE_ID": "0", "CUDA_VISIBLE_DEVICES": "0,1", "MUJOCO_GL": "osmesa"}
    done = in_worker(gpu, IMPORT, **given)
    assert done.returncode == 0, done.stderr


TAKE = "from duqsweep.control.dispatch.devices import take_device; take_device(); "


@pytest.mark.parametrize(
    ("visible", "seen"), [("1", "1"), ("2,0", "2"), ("MIG-GPU-8e1f/1/0", "None"), ("", "None")]
)
def test_an_evaluation_in_this_process_renders_on_the_device_of_torch(
    visible: str, seen: str
) -> None:
    code = TAKE + (
        "import os, robosuite.utils.binding_utils; print(os.environ.get('MUJOCO_EGL_DEVICE_ID'))"
    )
    given = {"MUJOCO_EGL_DEVICE_ID": "0", "CUDA_VISIBLE_DEVICES": visible, "MUJOCO_GL": "osmesa"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == seen


def test_inline_evaluates_on_that_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "0")
    seen = []
    dispatcher = InlineDispatcher(
        tmp_path,
        lambda: lambda folder, until: seen.append(os.environ["MUJOCO_EGL_DEVICE_ID"]),
    )
    trial_dir(tmp_path, 0).mkdir(parents=True)
    dispatcher.submit(Assignment(0, 1))
    assert [end.failure for end in dispatcher.poll()] == [None]
    assert seen == ["1"]
