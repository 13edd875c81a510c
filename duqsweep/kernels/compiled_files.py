"""Compiled kernels on disk, shared by all processes of a user: compilers take seconds for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from duqsweep import private
from duqsweep.files import write_bytes


def compiled_file(
    name: str, suffix: str, made_from: Sequence[bytes], compile_it: Callable[[], bytes]
) -> Path:
    """The file with the machine code of a kernel, made where no process has compiled it before.

    Args:
        name: For people, in the file's name.
        suffix: Of the file, e.g. ".cubin".
        made_from: Everything that shapes the code: compiler, options, sources.
        compile_it: Called where it is not on disk.
    """
    content = hashlib.sha256()
    for part in made_from:
        content.update(len(part).to_bytes(8, "little") + part)
    path = _folder() / f"{name}-{content.hexdigest()[:32]}{suffix}"
    if not path.exists():
        write_bytes(path, compile_it())
    return path


@cache
def _folder() -> Path:
    return private.cache_folder("kernels")
