"""Locks between processes on one file, also on file systems that know only one kind of lock."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from duqsweep.errors import DuqsweepError

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


def try_lock(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Lock an open, writable file if nobody else holds it; freed when it is closed.

    Network file systems without `flock` may know `lockf` (POSIX), which then keeps others away
    as well.

    Raises:
        DuqsweepError: The file system knows neither.
    """
    for lock in (fcntl.flock, fcntl.lockf):
        try:
            lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return True
    raise DuqsweepError(
        f"the file system of {os.fspath(path)} has no locks, so that nothing would keep two "
        "controllers or workers apart; set dir=FOLDER on one that has (mount NFS with lock, "
        "Lustre with flock)"
    )


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock on a file; false where there is no such file.

    Raises:
        DuqsweepError: The file system has no locks.
    """
    try:
        with path.open("r+b") as file:
            return not try_lock(file.fileno(), path)
    except FileNotFoundError:
        return False
