"""Checks of one machine: each returns what it found, or raises an error that says what to set."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import torch

from duqsweep.checkpoint.locate import check_checkpoint, checkpoint_dir
from duqsweep.envs.assets import RECORDED, find_recording
from duqsweep.kernels.cpp_layers import check_compiled, find_compiler
from duqsweep.masking import masked, without_user
from duqsweep.worker.ledger import make_ledger

if TYPE_CHECKING:
    from duqsweep.spec import SuiteSpec
    from duqsweep.worker.probe import ProbeRequest

MIN_CONTRAST = 10  # pictures without anything in them are how a broken renderer shows
CONNECT_S = 10.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432}  # where an address names none


def torch_version() -> str:
    """The version of torch that this process has loaded."""
    return str(torch.__version__)


def check_policy(request: ProbeRequest) -> str:
    """The files of the policy's checkpoint can be read."""
    check_checkpoint(request.policy)
    return str(checkpoint_dir(request.policy))


def check_compiler(request: ProbeRequest) -> str:
    """torch.compile and Triton find a C++ compiler; for a CPU, it compiles this package's code."""
    return find_compiler() if request.has_gpu else check_compiled()


def check_gpu(request: ProbeRequest) -> str:
    """A GPU was asked for: torch computes on it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"it is built for CUDA {built}: is the driver older?" if built else "it has no CUDA"
        raise RuntimeError(
            f"torch {torch.__version__} sees no GPU (CUDA_VISIBLE_DEVICES {visible}); {why}"
        )
    total = torch.ones(8, device="cuda").sum().item()
    if total != 8.0:
        raise RuntimeError(f"the GPU adds eight ones up to {total}")
    return f"{torch.cuda.get_device_name()} (CUDA_VISIBLE_DEVICES {visible})"


def check_submits(request: ProbeRequest) -> str:
    """Jobs can be submitted from here, as a controller that is a job does."""
    found = shutil.which("sbatch")
    if found is None:
        raise RuntimeError("no sbatch here: run the controller on a login node, without --as-job")
    return found


def check_addresses(request: ProbeRequest) -> str:
    """MLflow's server and the study's database accept connections from here."""
    reached = []
    for address in request.addresses:
        parts = urlsplit(address)
        port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
        shown = without_user(masked(address))
        if parts.hostname is None or port is None:
            continue  # a file, or a name that only a library knows
        try:
            socket.create_connection((parts.hostname, port), CONNECT_S).close()
        except OSError as error:
            raise RuntimeError(
                f"{shown}: {error.strerror or error}; run the controller on a login node, without "
                "--as-job, or set an address that nodes reach"
            ) from error
        reached.append(shown)
    return ", ".join(reached) or "only files"


def check_rendering(request: ProbeRequest) -> str:
    """The suite's first pictures can be drawn."""
    return draw(request.suite)


def draw(suite: SuiteSpec) -> str:
    """Draw the first pictures of a suite; raises where they are empty or cannot be drawn.

    A suite of recorded observations needs none, but its file.
    """
    if suite.name == RECORDED:
        return f"suite {RECORDED} needs none: {find_recording(suite)}"
    from duqsweep.envs.libero import open_environment
    from duqsweep.envs.rendering import resolve_renderer

    environment = open_environment(suite)
    try:
        seen = environment.reset(make_ledger(suite)[0])
    finally:
        environment.close()
    for camera, picture in seen.images.items():
        if picture.std() < MIN_CONTRAST:
            raise RuntimeError(f"camera {camera} sees nothing: is libosmesa6 installed?")
    renderer = resolve_renderer(suite.renderer)
    return f"{suite.name} draws {', '.join(seen.images)} by {renderer}"
