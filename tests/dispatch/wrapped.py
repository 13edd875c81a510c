"""Commands of SLURM that misbehave while a file says so, around the real ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Wrapped:
    """A command that is first on PATH, and runs the real one unless it misbehaves."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._script = folder / f"{name} that misbehaves"
        self._calls = folder / f"{name} calls"
        self.real = shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}")
        program = folder / name
        program.write_text(
            f"#!/bin/bash\necho call >> '{self._calls}'\n"
            f"[ -e '{self._script}' ] && . '{self._script}'\n"
            f'exec {self.real} "$@"\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    @contextmanager
    def doing(self, shell: str) -> Iterator[None]:
        """Run `shell` in place of the command; without an `exit` the command follows."""
        self._script.write_text(shell)
        try:
            yield
        finally:
            self._script.unlink()

    @property
    def calls(self) -> int:
        return len(self._calls.read_text().splitlines()) if self._calls.exists() else 0
