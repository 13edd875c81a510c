"""Packages that LIBERO and robosuite import and no episode uses: left out, they cost nothing.

matplotlib colours pictures of segments, OpenCV opens windows, Gymnasium types environments that are
stepped in batches.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

UNNEEDED = ("cv2", "gymnasium", "matplotlib", "matplotlib.cm")


class _StandIn(ModuleType):
    """Has any name, as annotations need it, but for those that Python itself asks for."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


@contextmanager
def left_out() -> Iterator[None]:
    """In the block, imports of these packages give stand-ins; afterwards, the packages.

    A package that was imported before is given as it is.
    """
    missing = [name for name in UNNEEDED if name not in sys.modules]
    sys.modules.update((name, _StandIn(name)) for name in missing)
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
