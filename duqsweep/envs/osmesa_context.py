"""One OpenGL context for all simulators of a process that Mesa draws on the CPU.

robosuite makes a context for each. In every one, Mesa compiles anew what scales textures: 0.13 s of
the 0.2 that a model of `duq_mini` takes to build. MuJoCo's own contexts, which hold a model's
meshes, textures and buffers, can share one of OpenGL. Import after `prepare_libero`'s settings.
"""

from __future__ import annotations

from functools import cache

from robosuite.renderers.context.osmesa_context import OSMesaGLContext
from robosuite.utils import binding_utils


class _Kept(OSMesaGLContext):  # type: ignore[misc]
    def free(self) -> None:
        """Nothing: other simulators draw with it."""


@cache
def _shared(width: int, height: int) -> _Kept:
    return _Kept(width, height)


def _context(max_width: int, max_height: int, device_id: int = -1) -> _Kept:
    return _shared(max_width, max_height)


def share_context() -> None:
    """Let all of robosuite's simulators that are built from now on draw in one context."""
    binding_utils.GLContext = _context
