"""Measure success of a checkpoint per task: full precision, fewer bits, fewer denoising steps.

    python examples/embedded_policy/measure.py --checkpoint FOLDER --out FILE.jsonl \
        --config fp --episodes 50 --workers 16
    python examples/embedded_policy/measure.py --summary FILE.jsonl

A configuration is words joined by dashes: `fp`, `w3-dit`, `w4-all`, `w3-all-none` (rotation), `a4`
(activation bits, 8 unless told), `s1` (Euler steps, 10 unless told): `w3-dit-s4`. Every finished
episode is one line of the output, so a run that is cut short loses nothing but its last episodes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LAYERS = {"dit": r"gemma_expert", "llm": r"language_model", "all": r"gemma_expert|language_model"}
ROTATIONS = ("hadamard", "svd", "none")
CALIBRATION_SEED = 20_000


@dataclass(frozen=True)
class Setting:
    """One configuration, parsed from its name."""

    name: str
    weight_bits: int = 16
    act_bits: int = 8
    layers: str = "all"
    rotation: str = "hadamard"
    num_steps: int = 10

    @staticmethod
    def parse(name: str) -> Setting:
        """Read `w3-dit-a8-none-s4` and the like."""
        values: dict[str, object] = {}
        for word in name.split("-"):
            if word in LAYERS:
                values["layers"] = word
            elif word in ROTATIONS:
                values["rotation"] = word
            elif word != "fp":
                key = {"w": "weight_bits", "a": "act_bits", "s": "num_steps"}[word[0]]
                values[key] = int(word[1:])
        return Setting(name, **values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Work:
    """Some episodes of one task under one configuration."""

    setting: Setting
    task: int
    states: tuple[int, ...]


class Bench:
    """One process's environment, reference policy and calibration observations."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        from duqsweep.envs.libero import open_environment
        from duqsweep.policy.checkpoint import load_policy
        from duqsweep.spec import PolicySpec, ProtocolSpec

        torch.set_num_threads(1)
        self.protocol = ProtocolSpec(
            suite="duq_mini",
            tasks=args.tasks,
            init_states=50,
            image_px=64,
            max_steps=args.max_steps,
            nominal_steps=100,
            settle_steps=args.settle_steps,
            replan_steps=args.replan_steps,
        )
        self.environment = open_environment(self.protocol)
        spec = PolicySpec("embedded", checkpoint=str(args.checkpoint))
        self.reference = load_policy(spec, "cpu")
        self.current: tuple[Setting, object, float] | None = None
        self.observations: list[object] = []

    def policy(self, setting: Setting) -> tuple[object, float]:
        """The policy under `setting` and its action error; the last one is kept."""
        if self.current is None or self.current[0] != setting:
            self.current = (setting, *self._make(setting))
        return self.current[1], self.current[2]

    def _make(self, setting: Setting) -> tuple[object, float]:
        from duqsweep.policy.sizes import linear_layers
        from duqsweep.quant.calibrate import calibrate
        from duqsweep.quant.freeze import freeze
        from duqsweep.quant.select import select_layers
        from duqsweep.spec import LayerRule, QuantSpec
        from duqsweep.worker.fidelity import action_error
        from duqsweep.worker.noise import flow_noise

        policy = self.reference.copy(setting.num_steps)
        if setting.weight_bits == 16 and setting.num_steps == 10:
            return policy, 0.0
        seen = self._observations()
        if setting.weight_bits < 16:
            rule = LayerRule(LAYERS[setting.layers], setting.weight_bits, setting.act_bits)
            quant = QuantSpec(rules=(rule,), rotation=setting.rotation)  # type: ignore[arg-type]
            bits = select_layers(quant, linear_layers(policy.config.sizes))

            def run() -> None:
                for i, observation in enumerate(seen[::2]):
                    noise = flow_noise((CALIBRATION_SEED, i), policy.horizon, policy.action_dim)
                    policy.act(observation, noise)

            stats = calibrate(policy.module, bits, quant, run)
            freeze(policy.module, bits, quant, stats, None, "")
        return policy, action_error(policy, self.reference, seen[1::2], CALIBRATION_SEED + 1)

    def _observations(self) -> list[object]:
        from duqsweep.worker.observations import collect

        if not self.observations:
            self.observations = collect(self.reference, self.protocol, self.environment)
        return self.observations

    def play(self, work: Work) -> Iterator[dict[str, object]]:
        """One record an episode."""
        from duqsweep.spec import LedgerEntry
        from duqsweep.worker.episode import run_episode

        policy, error = self.policy(work.setting)
        for state in work.states:
            entry = LedgerEntry(state, "duq_mini", work.task, state, seed=7)
            record = run_episode(self.environment, policy, entry, self.protocol)
            yield {
                "config": work.setting.name,
                "task": work.task,
                "state": state,
                "success": record.success,
                "steps": record.steps,
                "call_ms": round(1e3 * record.policy_s / max(record.calls, 1), 2),
                "action_error": round(error, 5),
                "error": record.error,
            }


def serve(args: argparse.Namespace, inbox: object, outbox: object) -> None:
    """A worker process: play what comes until told to end."""
    bench = Bench(args)
    while (work := inbox.get()) is not None:  # type: ignore[attr-defined]
        for record in bench.play(work):
            outbox.put(record)  # type: ignore[attr-defined]
    outbox.put(None)  # type: ignore[attr-defined]


def plan(args: argparse.Namespace) -> list[Work]:
    """All episodes in bundles: all tasks of a configuration before the next configuration."""
    first = args.first_state
    states = range(first, first + args.episodes)
    bundles = [tuple(states[i : i + args.bundle]) for i in range(0, len(states), args.bundle)]
    return [
        Work(Setting.parse(name), task, bundle)
        for name in args.config
        for bundle in bundles
        for task in range(args.tasks)
    ]


def measure(args: argparse.Namespace) -> None:
    """Play everything that fits the time limit."""
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    inbox, outbox = context.Queue(), context.Queue()
    work = plan(args)
    for item in [*work, *[None] * args.workers]:
        inbox.put(item)
    workers = [
        context.Process(target=serve, args=(args, inbox, outbox), daemon=True)
        for _ in range(args.workers)
    ]
    for worker in workers:
        worker.start()
    running, episodes = args.workers, 0
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as file:
        while running and (left := args.limit_s - (time.monotonic() - start)) > 0:
            try:
                record = outbox.get(timeout=min(left, 5.0))
            except Exception as error:  # queue.Empty of the context
                if type(error).__name__ != "Empty" or not any(w.is_alive() for w in workers):
                    break
                continue
            if record is None:
                running -= 1
                continue
            episodes += 1
            file.write(json.dumps(record) + "\n")
            file.flush()
    for worker in workers:
        worker.terminate()
    print(f"{episodes} episodes in {time.monotonic() - start:.0f} s", flush=True)


def wilson(successes: int, episodes: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion."""
    if episodes == 0:
        return 0.0, 1.0
    p = successes / episodes
    centre = p + z * z / (2 * episodes)
    half = z * (p * (1 - p) / episodes + z * z / (4 * episodes**2)) ** 0.5
    scale = 1 + z * z / episodes
    return (centre - half) / scale, (centre + half) / scale


def summary(path: Path) -> None:
    """Print one Markdown row a configuration."""
    rows: dict[str, dict[int, list[dict[str, object]]]] = defaultdict(lambda: defaultdict(list))
    for line in path.read_text().splitlines():
        record = json.loads(line)
        rows[record["config"]][record["task"]].append(record)
    tasks = sorted({task for row in rows.values() for task in row})
    print("| configuration | " + " | ".join(f"task {t}" for t in tasks), end="")
    print(" | all | 95 % interval | steps | ms a call | action error |")
    print("|---" * (len(tasks) + 6) + "|")
    for name, row in rows.items():
        played = [record for task in tasks for record in row[task] if not record["error"]]
        won = [record for record in played if record["success"]]
        cells = [
            f"{sum(bool(r['success']) for r in row[t])}/{sum(not r['error'] for r in row[t])}"
            for t in tasks
        ]
        low, high = wilson(len(won), len(played))
        steps = sum(r["steps"] for r in won) / max(len(won), 1)  # type: ignore[misc]
        call_ms = sorted(r["call_ms"] for r in played)[len(played) // 2] if played else 0  # type: ignore[type-var]
        error = played[0]["action_error"] if played else 0
        print(
            f"| {name} | {' | '.join(cells)} | {len(won)}/{len(played)} "
            f"({100 * len(won) / max(len(played), 1):.1f} %) | {100 * low:.1f}–{100 * high:.1f} "
            f"| {steps:.0f} | {call_ms} | {error} |"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--config", nargs="+", default=["fp"])
    parser.add_argument("--episodes", type=int, default=50, help="a task")
    parser.add_argument("--first-state", type=int, default=0)
    parser.add_argument("--bundle", type=int, default=5, help="episodes handed out at once")
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--max-steps", type=int, default=220)
    parser.add_argument("--settle-steps", type=int, default=10)
    parser.add_argument("--replan-steps", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=1e9)
    args = parser.parse_args()
    if args.summary:
        summary(args.summary)
    else:
        measure(args)


if __name__ == "__main__":
    main()
