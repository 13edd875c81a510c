"""Two samplers with the same budget of real episodes, and what their fronts are worth afterwards.

    python benchmarks/real_comparison.py --work /tmp/comparison runtime.device=cpu launcher.jobs=2

Runs `+sweep=sampler_comparison` once per sampler and seed, all at the same time, then `confirm` for
each of them, then prints a table and writes JSON. Further words are overrides of every sweep.
Confirmation plays reserved states, which no sweep has seen, so its success rates are those of the
points and not of their luck. The same command resumes what was interrupted; with `--minutes`, it
stops by itself, and the table then shows what there is.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGINT
from statistics import mean
from typing import Any

from duqsweep import files
from duqsweep.control.front.measures import MODELLED_TIME_S
from duqsweep.control.front.pareto import hypervolume
from duqsweep.control.front.records import Front, FrontPoint, read_front
from duqsweep.exit_codes import INTERRUPTED

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "real_comparison.json"
SWEEP = "sampler_comparison"
FLOOR = 0.5  # success rates below it count for nothing in the hypervolume
SLACK = 1.5  # times slower than the unquantized policy count for nothing, as in front.json
WAYS = ("maximize", "minimize")

Process = subprocess.Popen[bytes]
Stop = Callable[[Process, Path], None]


def main() -> int:
    """Run or resume everything, then write and print the table."""
    options, overrides = _options()
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else math.inf
    folders = {
        (sampler, seed): options.work.resolve() / f"{sampler}-{seed}"
        for seed in range(options.seeds)
        for sampler in options.samplers
    }
    common = [f"+sweep={SWEEP}", "tracking=none", "launcher=local", *overrides]
    sweeps = {
        folder: [*common, f"sampler={sampler}", f"seed={seed}", f"dir={folder}"]
        for (sampler, seed), folder in folders.items()
    }
    _run_all(sweeps, deadline, lambda _, folder: files.write_text(folder / files.STOP, ""))
    episodes = [] if options.confirm is None else ["--episodes", str(options.confirm)]
    confirmations = {
        folder: ["confirm", str(folder), *episodes]
        for folder in folders.values()
        if (folder / files.FRONT_JSON).exists()
    }
    _run_all(confirmations, deadline, lambda process, _: process.send_signal(SIGINT))
    rows = [
        _row(sampler, seed, front)
        for (sampler, seed), folder in folders.items()
        if (front := read_front(folder)) is not None
    ]
    _add_shares(rows)
    document = {
        "command": f"python benchmarks/real_comparison.py {' '.join(sys.argv[1:])}",
        "hypervolume": f"of success on reserved states above {FLOOR} and the logarithm of the "
        f"modelled time below {SLACK} times the unquantized policy's, as a share of what the "
        "points of all sweeps have together",
        "rows": rows,
    }
    files.write_json(options.out, document)
    print(_table(rows))
    return 0


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samplers", nargs="+", default=["tpe", "kghv"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, required=True, help="keeps the folders of the sweeps")
    parser.add_argument(
        "--confirm", type=int, default=None, help="episodes per point (default: all reserved ones)"
    )
    parser.add_argument("--minutes", type=float, default=None, help="stop after so many")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_known_args()


def _run_all(commands: Mapping[Path, list[str]], deadline: float, stop: Stop) -> None:
    """Run duqsweep with each list of words, all at once, and `stop` what runs at the deadline.

    Each writes into `<folder>.log`. Raises SystemExit where one fails.
    """
    running: dict[Path, Process] = {}
    try:
        for folder, words in commands.items():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with folder.with_suffix(".log").open("ab") as log:
                command = [sys.executable, "-m", "duqsweep", *words]
                running[folder] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        while any(p.poll() is None for p in running.values()) and time.monotonic() < deadline:
            time.sleep(0.5)
        for folder, process in running.items():
            if process.poll() is None:
                stop(process, folder)
        for process in running.values():
            process.wait()
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
    for folder, process in running.items():
        if process.returncode not in (0, INTERRUPTED):
            said = folder.with_suffix(".log").read_text(encoding="utf-8")[-2000:]
            sys.exit(f"{folder.name} ended with code {process.returncode}:\n{said}")


def _row(sampler: str, seed: int, front: Front) -> dict[str, Any]:
    """One sweep."""
    return {
        "sampler": sampler,
        "seed": seed,
        "episodes": front.episodes,
        "trials": len(front.points),
        "verdict_trial": front.verdict.trial if front.verdict else None,
        "states": {
            state: sum(point.state == state for point in front.members)
            for state in ("confirmed", "refuted", "unconfirmed")
        },
        "reference_time_s": _reference_time_s(front),
        "front": [_point(point) for point in front.members],
    }


def _reference_time_s(front: Front) -> float | None:
    found = (p.value(MODELLED_TIME_S) for p in front.points if p.name == "reference")
    return next(found, None)


def _point(point: FrontPoint) -> dict[str, Any]:
    stated = point.success.success_rate if point.success_mean is None else point.success_mean
    reserved = point.reserved.success if point.reserved else None
    return {
        "trial": point.trial,
        "name": point.name,
        "params": point.params,
        "episodes": point.success.counts.episodes,
        "stated_success": stated,
        "modelled_time_s": point.value(MODELLED_TIME_S),
        "p_front": point.p_front,
        "state": point.state,
        "reserved_episodes": reserved.counts.episodes if reserved else 0,
        "reserved_success": reserved.success_rate if reserved else None,
    }


def _add_shares(rows: Sequence[dict[str, Any]]) -> None:
    """Give each row its front's hypervolume and how far its stated rates are off."""
    shown = {(row["sampler"], row["seed"]): _confirmed(row) for row in rows}
    times = [row["reference_time_s"] for row in rows if row["reference_time_s"]]
    if not times:
        return
    corner = (FLOOR, math.log(SLACK * max(times)))
    whole = hypervolume([pair for pairs in shown.values() for pair in pairs], corner, WAYS)
    for row in rows:
        pairs = shown[row["sampler"], row["seed"]]
        volume = hypervolume(pairs, corner, WAYS)
        off = [
            point["stated_success"] - point["reserved_success"]
            for point in row["front"]
            if point["reserved_success"] is not None and point["stated_success"] is not None
        ]
        row["hypervolume_share"] = round(volume / whole, 4) if whole else None
        row["stated_minus_reserved"] = round(mean(off), 4) if off else None


def _confirmed(row: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Success on reserved states and logarithm of the time, of each point that was confirmed."""
    return [
        (point["reserved_success"], math.log(point["modelled_time_s"]))
        for point in row["front"]
        if point["reserved_success"] is not None and point["modelled_time_s"]
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| sampler | seed | episodes | trials | on the front | confirmed, refuted, open | "
        "hypervolume | stated minus reserved success |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["sampler"], row["seed"])):
        states = row["states"]
        volume, off = row.get("hypervolume_share"), row.get("stated_minus_reserved")
        lines.append(
            f"| {row['sampler']} | {row['seed']} | {row['episodes']} | {row['trials']} "
            f"| {len(row['front'])} | {states['confirmed']}, {states['refuted']}, "
            f"{states['unconfirmed']} | {'–' if volume is None else f'{volume:.3f}'} "
            f"| {'–' if off is None else f'{100 * off:+.1f}'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
