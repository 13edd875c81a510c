"""What a checkpoint's files hold, in a second for any size: a path may lead to others tomorrow."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from duqsweep.spec import PolicySpec

NAMES = ("*.safetensors", "*.json", "*.model")  # weights, configuration and statistics, tokenizer
WHOLE_MB = 32  # a file up to that size is read whole
PIECES, PIECE_KB = 256, 64  # of a larger one, evenly spread; other weights differ everywhere


def checkpoint_contents(policy: PolicySpec) -> dict[str, str]:
    """File of the policy's checkpoint → its size and a hash; empty for the shipped policy.

    Where a file lies and when it was written does not matter, so a copy is the same checkpoint.

    Raises:
        OSError: A file cannot be read.
    """
    found = {}
    if policy.checkpoint is not None:
        folder = Path(policy.checkpoint)
        paths = {path for name in NAMES for path in folder.rglob(name) if path.is_file()}
        found = {str(path.relative_to(folder)): path for path in sorted(paths)}
    if policy.tokenizer is not None:
        found["tokenizer"] = Path(policy.tokenizer)
    return {name: _content(path) for name, path in found.items()}


def _content(path: Path) -> str:
    status = path.stat()
    return _hashed(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@cache
def _hashed(path: Path, status: tuple[int, ...]) -> str:
    """Size and hash of a file; a file of unchanged `status` is read once per process."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= WHOLE_MB << 20:
            file.seek(0)
            digest.update(file.read())
        else:
            last = size - (PIECE_KB << 10)
            for piece in range(PIECES):
                file.seek(last * piece // (PIECES - 1))
                digest.update(file.read(PIECE_KB << 10))
    return f"{size} bytes, {digest.hexdigest()[:16]}"
