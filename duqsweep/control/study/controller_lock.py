"""One controller per sweep: the lock that refuses a second one."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duqsweep.errors import ConfigError
from duqsweep.locking import try_lock
from duqsweep.private import close_to_others

LOCK = ".controller"
POLL_S = 0.5  # while another process holds the lock


@contextmanager
def controller_lock(directory: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Make the sweep's folder, and keep other controllers out of it while the block runs.

    The system frees the lock when its holder dies, so a killed controller leaves nothing to clean.
    A network file system may free the lock of a dead machine only minutes later.

    Args:
        directory: The sweep's folder.
        wait_s: For so long another holder may still free it.

    Raises:
        ConfigError: The folder cannot be written, or another controller holds it.
        DuqsweepError: Its file system has no locks.
    """
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        close_to_others(directory)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        message = f"cannot write the sweep's folder {directory}: {error.strerror}; set dir=FOLDER"
        raise ConfigError(message) from error
    with file:
        deadline = time.monotonic() + wait_s
        while not try_lock(file.fileno(), path):
            if time.monotonic() < deadline:
                time.sleep(POLL_S)
                continue
            file.seek(0)
            message = f"{directory} is in use by another controller: {_holder(file.read())}"
            raise ConfigError(message)
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
    except json.JSONDecodeError:
        return "it has just started"
    return f"process {holder['pid']} on {holder['host']}"
