"""Which process is which on this machine: process ids come back, start times do not."""

from __future__ import annotations

from pathlib import Path


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


def oom_kills() -> int:
    """How often the kernel has killed a process of this machine for want of memory; 0 if untold."""
    path = Path("/proc/vmstat")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
