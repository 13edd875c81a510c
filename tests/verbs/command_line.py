"""What the tests of the verbs share that is no fixture: which `conftest` is imported is chance."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import duqsweep

ROOT = Path(duqsweep.__file__).parent.parent
Command = Callable[..., "subprocess.CompletedProcess[str]"]
