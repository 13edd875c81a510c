"""An exclusive lock between processes that the system frees when its holder dies."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duqsweep.errors import InfrastructureError

POLL_S = 0.1


@contextmanager
def exclusive(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file `path`, created if missing, while the block runs.

    Args:
        path: A file in an existing folder; it is left behind, empty.
        wait_s: How long to wait for another holder.

    Raises:
        InfrastructureError: Another process still held it after `wait_s` seconds.
    """
    with path.open("a") as file:
        deadline = time.monotonic() + wait_s
        while not _try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise InfrastructureError(
                    f"{path} was still held by another process after {wait_s:g} s"
                )
            time.sleep(POLL_S)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
