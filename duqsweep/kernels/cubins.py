"""Compiled kernels on disk, shared by all processes of a user: NVRTC takes seconds for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from duqsweep import private
from duqsweep.files import write_bytes


def cached_cubin(name: str, made_from: Sequence[bytes], compile_it: Callable[[], bytes]) -> bytes:
    """The machine code of a kernel, read from disk where a process has compiled it before.

    Args:
        name: For people, in the file's name.
        made_from: Everything that shapes the code: compiler, options, sources.
        compile_it: Called where it is not on disk.
    """
    content = hashlib.sha256()
    for part in made_from:
        content.update(len(part).to_bytes(8, "little") + part)
    path = _folder() / f"{name}-{content.hexdigest()[:32]}.cubin"
    if path.exists():
        return path.read_bytes()
    cubin = compile_it()
    write_bytes(path, cubin)
    return cubin


@cache
def _folder() -> Path:
    return private.cache_folder("cubins")
