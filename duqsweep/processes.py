"""Which process is which on this machine: process ids come back, start times do not."""

from __future__ import annotations

import ctypes
import os
import signal
from functools import cache
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)
PROOF = "DUQSWEEP_WORKER"  # in the environment of a worker's processes: whose they are


def start_ticks(pid: int) -> int | None:
    """Clock ticks from boot to the start of a running process; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name is in parentheses and may hold anything, so count from the last one.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]  # proc(5): fields 3 and 22
    return None if state in "ZX" else int(ticks)


def die_with(parent: int) -> bool:
    """Have the system kill this process when the thread that started it ends.

    Returns:
        Whether `parent`, the process that started it, still lives; else this one must end itself.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


@cache
def machine_id() -> str:
    """The running system in which process ids mean the same: its boot and its pid namespace.

    A host's name can change while its processes run, and two containers can share one.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def has_proof(pid: int, proof: str) -> bool:
    """Whether the environment that a process was started with says that it belongs to a worker.

    False for processes that are gone or whose environment this user may not read.
    """
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(f"{PROOF}={proof}") in variables


def with_proof(proof: str) -> list[int]:
    """All processes of this machine that belong to a worker."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if has_proof(pid, proof)]


def oom_kills() -> int:
    """How often the kernel has killed a process of this machine for lack of memory; 0: unknown."""
    path = Path("/proc/vmstat")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
