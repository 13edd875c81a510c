"""A counter that an evaluation advances, and that the worker which watches it can read."""

from __future__ import annotations

import mmap
import struct

_COUNT = struct.Struct("Q")

# Shared with the processes that are forked from this one; one process writes at a time.
_memory = mmap.mmap(-1, _COUNT.size)


def advance() -> None:
    """The evaluation has done something: a step of the simulator, a timed call, a phase."""
    _COUNT.pack_into(_memory, 0, (count() + 1) % 2**64)


def count() -> int:
    """How often the evaluation has advanced; an equal number means that it did nothing."""
    return int(_COUNT.unpack_from(_memory, 0)[0])
