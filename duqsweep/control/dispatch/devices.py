"""Which device an evaluation uses, for torch and for the renderer."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

RENDERERS_GPU = "MUJOCO_EGL_DEVICE_ID"


def device_lines(gpu: str) -> list[str]:
    """Shell lines that give a worker its own device, for torch and for the renderer.

    robosuite refuses a MUJOCO_EGL_DEVICE_ID that is not among CUDA_VISIBLE_DEVICES, also where it
    renders on the CPU. So the value of this process must not reach a worker with another device.

    Args:
        gpu: As CUDA names it: a number, or the UUID of a GPU or of a MIG slice; empty: none.
    """
    # Without the first line, submitit hides all GPUs.
    lines = [f"export CUDA_VISIBLE_DEVICES={shlex.quote(gpu)}", f"unset {RENDERERS_GPU}"]
    return [*lines, f"export {RENDERERS_GPU}={gpu}"] if gpu.isdigit() else lines


def cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, as CUDA names them, found without torch."""
    # A shared machine hands out its GPUs by this variable, and CUDA itself obeys it.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [item.strip() for item in visible.split(",") if item.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return answer.stdout.split() if answer.returncode == 0 else []


def take_device() -> None:
    """Let this process render on the device that torch takes: the first one that is visible.

    Its MUJOCO_EGL_DEVICE_ID may be of another device, which robosuite refuses.
    """
    os.environ.pop(RENDERERS_GPU, None)
    gpu = next(iter(cuda_devices()), "")
    if gpu.isdigit():
        os.environ[RENDERERS_GPU] = gpu
