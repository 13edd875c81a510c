"""The lock between processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from duqsweep.errors import InfrastructureError
from duqsweep.locking import try_lock
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


def test_a_fork_of_the_holder_does_not_hold_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    ready, go = os.pipe(), os.pipe()
    with exclusive(path, 0.0):
        pid = os.fork()
        if pid == 0:
            with open(path, "a") as other:
                held = not try_lock(other.fileno(), path)  # the parent still holds it
            os.write(ready[1], b"held" if held else b"free")
            os.read(go[0], 1)
            os._exit(0)
        assert os.read(ready[0], 4) == b"held"
    with exclusive(path, 0.0):  # free, though the fork still runs
        pass
    os.write(go[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0


def test_a_file_that_a_fork_opens_is_not_closed_with_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with exclusive(tmp_path / ".lock", 0.0):
        process = context.Process(target=_write_after_leaving, args=(tmp_path / "written",))
        process.start()
        process.join(20.0)
    assert (tmp_path / "written").read_text() == "whole"


def _write_after_leaving(path: Path) -> None:
    with path.open("w") as file:
        gc.collect()
        file.write("whole")
