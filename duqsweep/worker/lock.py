"""An exclusive lock between processes that the system frees when its holder dies.

Only the process that took the lock holds it. A fork shares its parent's open files, and would keep
the lock after its parent's death, so it closes them first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duqsweep.errors import InfrastructureError
from duqsweep.locking import try_lock

POLL_S = 0.1

_descriptors: set[int] = set()  # of the files that this process holds locks on


@contextmanager
def exclusive(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file `path`, created if missing, while the block runs.

    Args:
        path: A file in an existing folder; it is left behind, empty.
        wait_s: How long to wait for another holder.

    Raises:
        InfrastructureError: Another process still held it after `wait_s` seconds.
        DuqsweepError: The file system has no locks.
    """
    with path.open("a") as file, not_inherited(file.fileno()):
        deadline = time.monotonic() + wait_s
        while not try_lock(file.fileno(), path):
            if time.monotonic() >= deadline:
                raise InfrastructureError(
                    f"{path} was still held by another process after {wait_s:g} s"
                )
            time.sleep(POLL_S)
        yield


@contextmanager
def not_inherited(descriptor: int) -> Iterator[None]:
    """Processes that are forked in the block do not have the open file `descriptor`."""
    _descriptors.add(descriptor)
    try:
        yield
    finally:
        _descriptors.discard(descriptor)


def _close_in_fork() -> None:
    # The number stays in use, since the fork's file object would otherwise close a later file.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in _descriptors:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_fork)
