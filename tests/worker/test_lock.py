"""The lock between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from duqsweep.errors import InfrastructureError
from duqsweep.worker.lock import exclusive

HOLD = """
import sys, time
from pathlib import Path
from duqsweep.worker.lock import exclusive
with exclusive(Path(sys.argv[1]), 0):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_refused_by_name_until_the_first_is_killed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(InfrastructureError, match=r"\.lock was still held"),
            exclusive(path, 0.2),
        ):
            pass
        holder.kill()
    with exclusive(path, 5.0):
        pass
