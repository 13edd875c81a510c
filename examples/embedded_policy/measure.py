"""Measure success of a checkpoint per task: full precision, fewer bits, fewer denoising steps.

    python examples/embedded_policy/measure.py --checkpoint FOLDER --out FILE.jsonl \
        --config fp:50 w8-all:20 w3-dit:20 s1:20 --workers 16
    python examples/embedded_policy/table.py FILE.jsonl ...

A configuration is words joined by dashes, with the number of episodes per task after a colon: `fp`,
`w3-dit`, `w4-all`, `w3-all-none` (no rotation), `a4` (activation bits, 8 unless told), `s1` (Euler
steps, 10 unless told). Each process runs one simulator; the policy answers them in batches. Every
finished episode is one line of the output, so a run that is cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections import defaultdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duqsweep.seams import Observation
from duqsweep.spec import LedgerEntry, SuiteSpec

SUITE = "duq_mini"
SEED = 7


class RemotePolicy:
    """The part of `seams.Policy` that an episode needs; the answers come from another process."""

    horizon, action_dim, num_steps = 10, 7, 10

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def act(self, observation: Observation, noise: NDArray[np.float32]) -> NDArray[np.float64]:
        """Ask and wait."""
        self.connection.send((observation, noise))
        answer: NDArray[np.float64] = self.connection.recv()
        return answer


def simulate(connection: Connection, suite: SuiteSpec) -> None:
    """A worker process: play (task, state) pairs until told None."""
    from duqsweep.envs.libero import open_environment
    from duqsweep.worker.episode import run_episode

    environment, policy = open_environment(suite), RemotePolicy(connection)
    connection.send("ready")
    while (job := connection.recv()) is not None:
        task, state = job
        entry = LedgerEntry(state, SUITE, task, state, SEED)
        record = run_episode(environment, policy, entry, suite)
        connection.send(
            {
                "task": task,
                "state": state,
                "success": record.success,
                "steps": record.steps,
                "error": record.error,
            }
        )


def plan(args: argparse.Namespace) -> list[tuple[str, int, int]]:
    """(configuration, task, state) of every episode, one configuration after the other."""
    jobs = []
    for text in args.config:
        name, _, count = text.partition(":")
        states = range(args.first_state, args.first_state + int(count or 20))
        jobs += [(name, task, state) for state in states for task in args.tasks]
    return jobs


def measure(args: argparse.Namespace) -> None:
    """Play everything that fits the time limit."""
    suite = SuiteSpec(
        name=SUITE,
        tasks=6,
        init_states=50,
        image_px=64,
        max_steps=args.max_steps,
        nominal_steps=65,
        settle_steps=5,
        replan_steps=args.replan_steps,
        renderer=args.renderer,
    )
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    ends = []
    for _ in range(args.workers):
        ours, theirs = context.Pipe()
        context.Process(target=simulate, args=(theirs, suite), daemon=True).start()
        theirs.close()
        ends.append(ours)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as file:
        for record in _played(args, suite, ends, start + args.limit_s):
            file.write(json.dumps(record) + "\n")
            file.flush()
    print(f"{args.out.name}: {time.monotonic() - start:.0f} s", flush=True)


def _played(
    args: argparse.Namespace, suite: SuiteSpec, ends: list[Connection], deadline: float
) -> Any:
    import torch
    from serving import Server, Setting

    from duqsweep.envs.libero import open_environment

    torch.set_num_threads(args.threads)
    server = Server(args.checkpoint, args.device)
    jobs = plan(args)
    if any(Setting.parse(name).name != "fp" for name, _, _ in jobs):
        server.collect(open_environment(suite), suite)
    queue = iter(jobs)
    playing: dict[Connection, str] = {}
    open_ends = list(ends)
    while open_ends and time.monotonic() < deadline:
        requests: dict[str, list[tuple[Connection, Any]]] = defaultdict(list)
        for end in wait(open_ends, timeout=1.0):
            try:
                message = end.recv()
            except EOFError:
                open_ends.remove(end)
                continue
            if isinstance(message, tuple):
                requests[playing[end]].append((end, message))
                continue
            if isinstance(message, dict):
                name = playing[end]
                error = server.action_error(Setting.parse(name))
                yield {"config": name, **message, "action_error": round(error, 5)}
            job = next(queue, None)
            if job is None:
                end.send(None)
                open_ends.remove(end)
                continue
            playing[end] = job[0]
            end.send(job[1:])
        for name, asked in requests.items():
            answers = server.answer(Setting.parse(name), [question for _, question in asked])
            for (end, _), answer in zip(asked, answers, strict=True):
                end.send(answer)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--config", nargs="+", default=["fp:50"])
    parser.add_argument("--tasks", type=int, nargs="+", default=list(range(6)))
    parser.add_argument("--first-state", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=125)
    parser.add_argument("--replan-steps", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--renderer", default="osmesa", choices=("osmesa", "egl"))
    parser.add_argument("--limit-s", type=float, default=1e9)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
