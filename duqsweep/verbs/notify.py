"""`--notify CMD`: a shell command that is run when a sweep has ended, however it did."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from duqsweep import exit_codes
from duqsweep.errors import ConfigError

PATIENCE_S = 60.0
VARIABLES = "DUQSWEEP_NAME, DUQSWEEP_STATE, DUQSWEEP_EXIT_CODE and DUQSWEEP_DIR"
# States: those of `control.sweep.Ending`, interrupted, and error for whatever was raised.
ERROR = "error"


@dataclass
class Notice:
    """Runs `command` when its block is left, if the sweep was begun in it."""

    command: str | None  # None: nothing is run
    name: str  # of the sweep
    directory: Path
    state: str | None = None  # None: it was not begun
    code: int = exit_codes.ERROR

    def __post_init__(self) -> None:
        if self.command is not None and not self.command.strip():
            raise ConfigError(f"--notify must be a shell command, got {self.command!r}")

    def __enter__(self) -> Notice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.command is not None and self.state is not None:
            _run(self.command, self._variables(self.state))

    def _variables(self, state: str) -> dict[str, str]:
        return {
            "DUQSWEEP_NAME": self.name,
            "DUQSWEEP_STATE": state,
            "DUQSWEEP_EXIT_CODE": str(self.code),
            "DUQSWEEP_DIR": str(self.directory),
        }


def _run(command: str, variables: dict[str, str]) -> None:
    """Run the command and wait for it; what goes wrong is one line, the sweep has ended anyway."""
    sys.stdout.flush()
    try:
        done = subprocess.run(
            command,
            shell=True,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        said = f"did not end within {PATIENCE_S:.0f} s"
    else:
        said = f"ended with code {done.returncode}" if done.returncode else ""
    if said:
        print(f"duqsweep: --notify {command!r} {said}", file=sys.stderr)
