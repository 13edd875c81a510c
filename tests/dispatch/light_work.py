"""An evaluation that costs nothing and misbehaves as its trial's plan.json says.

Jobs import this module by name, so its folder is on PYTHONPATH in these tests.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import nullcontext
from pathlib import Path

from duqsweep.errors import InfrastructureError
from duqsweep.files import (
    EPISODES_JSONL,
    RESULT_JSON,
    STOP,
    TRIAL_LOCK,
    append_line,
    read_json,
    read_lines,
    write_json,
)
from duqsweep.result import TrialResult
from duqsweep.worker import pulse
from duqsweep.worker.blame import in_simulator
from duqsweep.worker.lock import exclusive
from duqsweep.worker.serve import serve

PLAN = "plan.json"
VISITS = "visits.jsonl"
ORPHANS = "orphans.jsonl"


def serve_lightly(worker_dir: str) -> None:
    serve(worker_dir, open_light_evaluator)


def cannot_start(worker_dir: str) -> None:
    raise RuntimeError("no such node software")


def open_light_evaluator():
    return evaluate_lightly


def evaluate_lightly(folder: Path, until_episode: int) -> TrialResult:
    with exclusive(folder / TRIAL_LOCK, 5.0):
        return _evaluate(folder, until_episode)


def _evaluate(folder: Path, until_episode: int) -> TrialResult:
    plan = read_json(folder / PLAN)
    append_line(folder / VISITS, {"pid": os.getpid(), "begins": time.time()})
    if plan["mishap"] and len(read_lines(folder / VISITS)) <= plan["mishaps"]:
        _come_to_grief(plan["mishap"], folder)
    outcome = "complete"
    for i in range(len(read_lines(folder / EPISODES_JSONL)), until_episode):
        if (folder / STOP).exists():
            outcome = "stopped"
            break
        time.sleep(plan["episode_s"])
        pulse.advance()
        append_line(folder / EPISODES_JSONL, {"i": i, "pid": os.getpid()})
    episodes = len(read_lines(folder / EPISODES_JSONL))
    if plan["mishap"] == "policy fault":
        result = TrialResult("failed", "its fault", episodes, 0, 0, 0.0, "ValueError", "…")
    else:
        result = TrialResult(outcome, "walked", episodes, episodes, 0, 1.0)
    write_json(folder / RESULT_JSON, result.to_json())
    return result


def _come_to_grief(mishap: str, folder: Path) -> None:
    if mishap == "raise":
        raise RuntimeError("a bug outside of the evaluation")
    if mishap == "node":
        raise InfrastructureError("the renderer is gone")
    if mishap == "memory":
        raise MemoryError
    if mishap in ("hang", "crash") and os.fork() == 0:  # leaves an orphan
        append_line(folder / ORPHANS, {"pid": os.getpid()})
        time.sleep(600.0)
        os._exit(0)
    if mishap == "hang":
        time.sleep(600.0)
    if mishap == "crash":
        while not (folder / ORPHANS).exists():
            time.sleep(0.05)
        os._exit(3)
    if mishap == "exit":
        os._exit(3)
    if mishap == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
    if mishap.startswith("segfault"):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SLURM allows dumps of 20 MB
        with in_simulator() if "simulator" in mishap else nullcontext():
            os.kill(os.getpid(), signal.SIGSEGV)
    if mishap == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if mishap == "kill the worker":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60.0)
    if mishap == "eat":
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1) * (20 << 20)))
            time.sleep(0.05)
