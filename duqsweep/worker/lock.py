"""An exclusive lock between processes that the system frees when its holder dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duqsweep.errors import InfrastructureError
from duqsweep.locking import try_lock

POLL_S = 0.1


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
    with path.open("a") as file:
        deadline = time.monotonic() + wait_s
        while not try_lock(file.fileno(), path):
            if time.monotonic() >= deadline:
                raise InfrastructureError(
                    f"{path} was still held by another process after {wait_s:g} s"
                )
            time.sleep(POLL_S)
        yield
