"""An evaluation that costs nothing and misbehaves as its trial's plan.json says.

Jobs import this module by name, so its folder is on PYTHONPATH in these tests.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path

from duqsweep.errors import InfrastructureError
from duqsweep.files import (
    EPISODES_JSONL,
    RESULT_JSON,
    STOP,
    append_line,
    read_json,
    read_lines,
    write_json,
)
from duqsweep.result import TrialResult
from duqsweep.worker.blame import in_simulator
from duqsweep.worker.serve import serve

PLAN = "plan.json"
VISITS = "visits.jsonl"


def serve_lightly(worker_dir: str) -> None:
    serve(worker_dir, open_light_evaluator)


def cannot_start(worker_dir: str) -> None:
    raise RuntimeError("no such node software")


def open_light_evaluator():
    return evaluate_lightly


def evaluate_lightly(folder: Path, until_episode: int) -> TrialResult:
    plan = read_json(folder / PLAN)
    append_line(folder / VISITS, {"pid": os.getpid(), "begins": time.time()})
    if plan["mishap"] and len(read_lines(folder / VISITS)) <= plan["mishaps"]:
        _come_to_grief(plan["mishap"])
    outcome = "complete"
    for i in range(len(read_lines(folder / EPISODES_JSONL)), until_episode):
        if (folder / STOP).exists():
            outcome = "stopped"
            break
        time.sleep(plan["episode_s"])
        append_line(folder / EPISODES_JSONL, {"i": i, "pid": os.getpid()})
    episodes = len(read_lines(folder / EPISODES_JSONL))
    if plan["mishap"] == "policy fault":
        result = TrialResult("failed", "its fault", episodes, 0, 0, 0.0, "ValueError", "…")
    else:
        result = TrialResult(outcome, "walked", episodes, episodes, 0, 1.0)
    write_json(folder / RESULT_JSON, result.to_json())
    return result


def _come_to_grief(mishap: str) -> None:
    if mishap == "raise":
        raise RuntimeError("a bug outside of the evaluation")
    if mishap == "node":
        raise InfrastructureError("the renderer is gone")
    if mishap == "memory":
        raise MemoryError
    if mishap == "exit":
        os._exit(3)
    if mishap == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
    if mishap.startswith("segfault"):
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
