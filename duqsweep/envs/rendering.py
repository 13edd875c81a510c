"""Which renderer draws: Mesa on the CPU (OSMesa), or a GPU through EGL."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Final, Literal

from duqsweep.background import in_background
from duqsweep.errors import InfrastructureError

AUTO: Final = "auto"
OSMESA: Final = "osmesa"
EGL: Final = "egl"
Renderer = Literal["auto", "osmesa", "egl"]
GPU_DEVICES = ("dev/nvidia[0-9]*", "dev/dri/renderD*", "dev/dxg")  # any of them: worth asking EGL
PROBE_S = 60.0  # robosuite and a driver may be slow to load
# Names of renderers that draw on the CPU, as OpenGL gives them.
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software rasterizer", "swr")
# Run as robosuite draws: its context, on the device that it would take.
_PROBE = """
from robosuite.renderers.context.egl_context import EGLGLContext
context = EGLGLContext(64, 64, -1)
context.make_current()
from OpenGL.GL import GL_RENDERER, glGetString
print("renderer:", glGetString(GL_RENDERER).decode())
"""

log = logging.getLogger(__name__)


@cache
def resolve_renderer(asked: Renderer) -> Literal["osmesa", "egl"]:
    """Either "osmesa" or "egl"; "auto" takes EGL where a GPU draws, and the log says what it took.

    The answer holds for the process: OpenGL cannot be loaded twice.
    """
    if asked != AUTO:
        return asked
    renderer, why = begin_to_resolve().result()
    log.info("renderer: %s, %s", renderer, why)
    return renderer


@cache
def begin_to_resolve() -> Future[tuple[Literal["osmesa", "egl"], str]]:
    """Begin to find out what draws here where that is "auto", in a thread, and why."""
    return in_background(_resolve)


def _resolve() -> tuple[Literal["osmesa", "egl"], str]:
    if not [device for pattern in GPU_DEVICES for device in Path("/").glob(pattern)]:
        return OSMESA, "since there is no GPU device here"
    try:
        device = egl_device()
    except InfrastructureError as error:
        return OSMESA, f"since EGL does not draw here: {error}"
    if any(name in device.lower() for name in SOFTWARE):
        return OSMESA, f"since EGL draws on the CPU here, by {device}"
    return EGL, f"drawn by {device}"


def egl_device() -> str:
    """What draws through EGL on this machine, as OpenGL names it, e.g. a GPU or llvmpipe.

    Asked in a process of its own: a failed attempt cannot be undone in this one.

    Raises:
        InfrastructureError: EGL does not work; the message is the last line that it printed.
    """
    environment = {**os.environ, "MUJOCO_GL": EGL, "PYOPENGL_PLATFORM": EGL}
    command = [sys.executable, "-c", _PROBE]
    try:
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROBE_S
        )
    except subprocess.TimeoutExpired:
        raise InfrastructureError(f"EGL gave no answer within {PROBE_S:.0f} s") from None
    found = [line for line in run.stdout.splitlines() if line.startswith("renderer: ")]
    if run.returncode or not found:
        raise InfrastructureError((run.stderr.strip().splitlines() or ["no message"])[-1])
    return found[-1].removeprefix("renderer: ")
