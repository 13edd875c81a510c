"""What a trial ran on: machine, versions, commit."""

from __future__ import annotations

import gc
import os
import platform
import socket
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import duqsweep
from duqsweep.errors import EvaluationError, InfrastructureError
from duqsweep.spec import FEW_BIT_KERNELS, KERNEL_NEEDS

CPU_INFO = Path("/proc/cpuinfo")
DRIVER_VERSION = Path("/sys/module/nvidia/version")
PACKAGES = ("torch", "numpy", "mujoco", "robosuite", "hf-libero")


def resolve_device(asked: str) -> str:
    """Either "cpu" or "cuda", where "auto" takes a GPU if there is one.

    Raises:
        InfrastructureError: A GPU is asked for and torch sees none on this node.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise InfrastructureError(
            "runtime.device is cuda, but torch sees no GPU; allowed: auto, cpu"
        )
    return asked


def check_kernel(kernel: str, device: str) -> None:
    """Raise EvaluationError unless this node can run the kernel of quantized layers."""
    if kernel not in FEW_BIT_KERNELS or (kernel == "fp8" and device == "cpu"):
        return
    needs, least = KERNEL_NEEDS[kernel], (9, 0) if kernel == "fp8" else (8, 0)
    if device != "cuda":
        raise EvaluationError(f"kernel={kernel} {needs}; torch sees no GPU on this node")
    capability = torch.cuda.get_device_capability()
    if capability < least:
        name, (major, minor) = torch.cuda.get_device_name(), capability
        raise EvaluationError(f"kernel={kernel} {needs}; {name} has capability {major}.{minor}")
    if find_spec("triton") is None:
        raise EvaluationError(f"kernel={kernel} {needs}; triton is not installed here")


def allocated_bytes(device: str) -> int | None:
    """GPU memory that tensors hold, by the allocator; None on a CPU."""
    if device != "cuda":
        return None
    gc.collect()  # an earlier trial's policy may be part of a cycle
    return torch.cuda.memory_allocated()


def describe_hardware(device: str, threads: int) -> dict[str, Any]:
    """The node by name, its processor, and the GPU when `device` is one."""
    found: dict[str, Any] = {
        "node": socket.gethostname(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "device": device,
        "gpu": None,
        "driver": None,
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["driver"] = _read_first_line(DRIVER_VERSION)
    return found


def describe_versions() -> dict[str, str]:
    """Versions of what computes: Python, this package, torch, the simulator."""
    versions = {"python": platform.python_version(), "duqsweep": duqsweep.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def git_commit(folder: Path) -> str | None:
    """The commit checked out in `folder`, or None where there is no git or no repository."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _cpu_model() -> str:
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read_first_line(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None
