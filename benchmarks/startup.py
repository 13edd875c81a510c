"""How long each trial of a real sweep waits for its first episode, and for what.

    python benchmarks/startup.py --out FILE.json --name duq_mini -- +sweep=dit_speed_gpu \
        launcher.jobs=2 launcher.simulators=7 budget.trials=4 budget.episodes_per_trial=8

Everything after `--` are words of `python -m duqsweep`; the folder and `tracking=none` are added. A
row is one trial: `first_episode_s` goes from the moment when its assignment was put into the
worker's folder to the begin of its first episode, and `phases_s` are the parts that the worker
logged. `nth` counts the trials of one worker; the first one starts Python, loads the policy and
opens the simulators. Rows of other names that the file holds already stay.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from throughput import machine

from duqsweep import files
from duqsweep.assignment import Assignment
from duqsweep.mailbox import Mailbox
from duqsweep.result import EpisodeRecord

PHASE = re.compile(r"^(\S+ \S+) INFO duqsweep\.worker\.phases: (.+): ([0-9.]+) s$")
EPISODE = re.compile(r"^(\S+ \S+) INFO duqsweep\.worker\.evaluate: episode (\d+): ([0-9.]+) s$")


def seconds(text: str) -> float:
    """Unix time of a log line's first words."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").timestamp()


def row_of(sweep_dir: Path, worker: str, nth: int, claimed: Path) -> dict[str, Any]:
    """One trial."""
    assignment = files.read_record(Assignment, claimed)
    folder = assignment.folder(sweep_dir)
    lines = (folder / files.LOG_TXT).read_text(encoding="utf-8").splitlines()
    begun = [seconds(m[1]) - float(m[3]) for m in map(EPISODE.match, lines) if m]
    phases = [(m[2], float(m[3])) for m in map(PHASE.match, lines) if m]
    path = folder / files.EPISODES_JSONL
    played = files.read_lines(path) if path.exists() else []
    episodes = [EpisodeRecord.from_json(line) for line in played]
    assigned = claimed.stat().st_mtime  # a rename keeps it
    return {
        "trial": assignment.trial,
        "worker": worker,
        "nth": nth,
        "first_episode_s": round(min(begun) - assigned, 2) if begun else None,
        "logs_s": round(seconds(lines[0][:23]) - assigned, 2),
        "phases_s": dict(phases),
        "episodes": len(episodes),
        "errors": sum(record.error is not None for record in episodes),
        "has_ended": (folder / files.RESULT_JSON).exists(),
    }


def rows_of(sweep_dir: Path) -> list[dict[str, Any]]:
    """All trials of the sweep itself that its workers claimed, worker by worker: no twins."""
    rows = []
    for worker in sorted((sweep_dir / "workers").iterdir()):
        for nth, claimed in enumerate(sorted((worker / "claimed").glob("*.json")), 1):
            if not files.read_record(Assignment, claimed).part:
                rows.append(row_of(sweep_dir, worker.name, nth, claimed))
    return rows


def run(sweep_dir: Path, words: list[str], limit_s: float) -> int:
    """Run a sweep, interrupt it after so many seconds, end its workers, return its exit code."""
    words = [*words, f"dir={sweep_dir}", "tracking=none"]
    process = subprocess.Popen([sys.executable, "-m", "duqsweep", *words])
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.wait()
    finally:
        mailboxes = [Mailbox(folder) for folder in (sweep_dir / "workers").glob("*")]
        for mailbox in mailboxes:
            mailbox.ask_to_leave()
        while any(mailbox.worker_exit() is None for mailbox in mailboxes):
            time.sleep(0.2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="of these rows in the file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds, then it is stopped")
    parser.add_argument("--keep", type=Path, help="where the sweep's folder stays")
    parser.add_argument("words", nargs="+", help="of duqsweep, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sweep_dir = (options.keep or Path(folder)) / "sweep"
        code = run(sweep_dir, options.words, options.limit)
        rows = rows_of(sweep_dir) if (sweep_dir / "workers").exists() else []
    for row in rows:
        print(json.dumps(row), flush=True)
    known = json.loads(options.out.read_text()) if options.out.exists() else {"sweeps": {}}
    sweeps = {**known["sweeps"], options.name: {"words": options.words, "trials": rows}}
    files.write_json(options.out, {"machine": machine(), "sweeps": sweeps})
    sys.exit(code)


if __name__ == "__main__":
    main()
