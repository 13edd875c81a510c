"""Folders that only their owner can write: what another user could write must not be believed."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder(name: str) -> Path:
    """A folder for files that can be made again, under XDG_CACHE_HOME or ~/.cache.

    Where that place, or a folder above it, could be changed by another user, a new folder with a
    random name is made in the folder for temporary files.

    Args:
        name: One word; the same name is the same folder.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return _private_or_new(base / "duqsweep" / name, name)


def machine_folder(name: str) -> Path:
    """A folder on this machine's own disk or memory, the same for all processes of this user.

    Under XDG_RUNTIME_DIR or the folder for temporary files; where another user could change it, a
    new folder with a random name.

    Args:
        name: One word.
    """
    above = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return _private_or_new(Path(above) / f"duqsweep-{os.geteuid()}" / name, name)


def _private_or_new(folder: Path, name: str) -> Path:
    """A folder, made with the one above it; where others could change it, a new one."""
    try:
        folder.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if is_private(folder):
            return folder
    except OSError:
        pass  # a place that is missing, full or read-only
    return Path(tempfile.mkdtemp(prefix=f"duqsweep-{name}-"))


def is_private(folder: Path) -> bool:
    """Whether no user but the owner of this process (and root) can change or replace a folder.

    The folder is no symbolic link, and this user's. It and all folders above belong to this user
    or root. Others can write none of them, except for one above with the sticky bit, as /tmp has.
    """
    own = folder.lstat()
    if not stat.S_ISDIR(own.st_mode) or own.st_uid != os.geteuid() or own.st_mode & OTHERS:
        return False
    for above in folder.resolve().parents:
        status = above.stat()
        is_open = status.st_mode & OTHERS and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or is_open:
            return False
    return True


def close_to_others(folder: Path) -> None:
    """Take from others the right to write a folder of this user, e.g. after a loose umask."""
    status = folder.stat()
    if status.st_uid == os.geteuid() and status.st_mode & OTHERS:
        folder.chmod(0o700)
