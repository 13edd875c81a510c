"""Episodes per hour of a worker with 1, 2, 4, 8, 16 … simulators and one policy.

    python benchmarks/throughput.py --suite duq_mini --policy embedded --device cpu
    python benchmarks/throughput.py --suite libero_spatial libero_10 --policy pi05 \
        --kernel none w4a8 --device cuda --checkpoint FOLDER --assets FOLDER

Each row is one trial that the product's worker plays: the same cache, pool, processes and files as
in a sweep. Nothing is counted in the first `--warm-up` seconds of its episodes, in which tasks are
built, then everything in the next `--seconds`; then the trial is interrupted. The table is written
after each row, so that a run that is cut off keeps its rows, and rows of other suites, policies,
kernels, devices, core and simulator counts and steps per policy call that the file holds already
stay.

`pi05` is pi0.5 at full size; with random weights (scripts/random_checkpoint.py writes them) its
episodes run to the step limit. So `episodes_per_hour` is computed from steps per second: for `pi05`
with the suite's mean length of a demonstration (`nominal_steps`), for the shipped policy with the
mean length of the episodes that ended. `step_cpu_ms` holds CPU milliseconds of a control step
without cameras, by robosuite and by duqsweep.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from duqsweep import files
from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.conf_dir import conf_dir
from duqsweep.envs.rendering import resolve_renderer
from duqsweep.fingerprint import fingerprint
from duqsweep.quant.select import select_layers
from duqsweep.result import EpisodeRecord, Throughput
from duqsweep.spec import (
    LayerRule,
    LedgerEntry,
    PolicySpec,
    QuantSpec,
    RuntimeSpec,
    SuiteSpec,
    Trial,
    TrialSpec,
)
from duqsweep.worker.ledger import make_ledger, write_ledger

POLICIES = {"embedded": "embedded", "pi05": "pi05_libero"}
LEDGER = 10_000  # episodes
SAMPLE_S = 1.0
START_S = 900.0  # until the first episode begins: loading, observations, capture and compilation
KEY = ("suite", "policy", "kernel", "device", "cores", "simulators", "replan_steps")  # of a row


def suite_spec(name: str, renderer: str, assets: str | None) -> SuiteSpec:
    """The shipped constants of a suite, read without Hydra, which a bare machine lacks."""
    folder = conf_dir() / "suite"
    values: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text())
    if values.pop("defaults", None):
        base = yaml.safe_load((folder / "base" / "libero.yaml").read_text())
        values = {**base, **values}
        values |= values.pop("protocols")[values["protocol"]]
    return SuiteSpec(**{**values, "renderer": renderer, "assets": assets})


def quant_spec(kernel: str) -> QuantSpec:
    """W4A8 in action expert and LLM; `none`: unquantized; `mixed`: W8A8 in the LLM."""
    if kernel == "none":
        return QuantSpec()
    if kernel == "mixed":
        pairs = (("gemma_expert", 4), ("language_model", 8))
        mixed = tuple(LayerRule(part, weight_bits=bits, act_bits=8) for part, bits in pairs)
        return QuantSpec(rules=mixed, kernel="w4a8")
    rules = (LayerRule(r"gemma_expert|language_model", weight_bits=4, act_bits=8),)
    return QuantSpec(rules=rules, kernel=kernel)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """One row to measure."""

    suite: SuiteSpec
    policy: str
    kernel: str
    device: str
    simulators: int
    checkpoint: str | None

    def spec(self) -> TrialSpec:
        """The trial."""
        return TrialSpec(
            policy=PolicySpec(POLICIES[self.policy], self.checkpoint),
            quant=quant_spec(self.kernel),
            runtime=RuntimeSpec(compile=True, device=self.device),  # type: ignore[arg-type]
            suite=self.suite,
        )


def make_trial(sweep_dir: Path, spec: TrialSpec) -> Path:
    """The next trial's folder, as the controller would write it."""
    number = len(list((sweep_dir / files.TRIALS_DIR).glob("*")))
    folder = files.trial_dir(sweep_dir, number)
    folder.mkdir(parents=True)
    bits = select_layers(spec.quant, linear_layers(policy_sizes(spec.policy)))
    trial = Trial(number, None, {}, fingerprint(spec, bits), spec)
    files.write_json(folder / files.SPEC_JSON, trial.to_json())
    write_ledger(sweep_dir / files.LEDGER_JSON, long_ledger(spec.suite))
    return folder


def long_ledger(suite: SuiteSpec) -> list[LedgerEntry]:
    """The suite's ledger again and again: on a fast machine, once is over within the warm-up."""
    once = make_ledger(suite)
    return [replace(once[i % len(once)], i=i) for i in range(LEDGER)]


class Sampler(threading.Thread):
    """Reads a worker's meter and the machine's, and then interrupts the worker."""

    def __init__(self, bench: Any, device: str, warm_up_s: float, seconds: float) -> None:
        super().__init__(daemon=True)
        self.bench, self.device = bench, device
        self.warm_up_s, self.seconds = warm_up_s, seconds
        self.counted: Throughput | None = None
        self.cpu_busy = 0.0
        self.gpu: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Wait for the episodes, then for the warm-up, then count."""
        deadline = time.monotonic() + START_S
        while self.bench.meter is None or not self.bench.meter.read().steps:
            if self.over.wait(0.1) or time.monotonic() > deadline:
                return
        if self.over.wait(self.warm_up_s):
            return
        begun, cpu = self.bench.meter.read(), cpu_seconds()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and not self.over.wait(SAMPLE_S):
            if self.device == "cuda":
                self.gpu.append(gpu_percent())
        self.counted = self.bench.meter.read().since(begun)
        self.cpu_busy = (cpu_seconds() - cpu) / self.counted.wall_s
        if not self.over.is_set():
            os.kill(os.getpid(), signal.SIGINT)


def cpu_seconds() -> float:
    """CPU time of this process and of all below it that run, i.e. of policy and simulators."""
    ticks: dict[int, int] = {}
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(path.parent.name)
        below.setdefault(int(fields[1]), []).append(number)
        ticks[number] = int(fields[11]) + int(fields[12])
    total, left = 0, [os.getpid()]
    while left:
        number = left.pop()
        total += ticks.get(number, 0)
        left += below.get(number, [])
    return total / os.sysconf("SC_CLK_TCK")


def gpu_percent() -> float:
    """Share of the last moments in which the GPU ran a kernel, by its driver."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        command.append(f"--id={visible.split(',')[0]}")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(said.split()[0])


def measure(case: Case, sweep_dir: Path, bench: Any, warm_up_s: float, seconds: float) -> dict:
    """One row of the table."""
    from duqsweep.worker.evaluate import evaluate

    bench.resize(case.simulators)
    bench.meter = None
    folder = make_trial(sweep_dir, case.spec())
    sampler = Sampler(bench, case.device, warm_up_s, seconds)
    start = time.monotonic()
    sampler.start()
    try:
        result = evaluate(folder, LEDGER, bench)
        if result.outcome != "complete":
            sys.exit(f"{result.reason}\n{result.traceback or ''}")
    except KeyboardInterrupt:
        if sampler.counted is None:
            raise
    sampler.over.set()
    sampler.join()
    bench.close()
    if sampler.counted is None:
        sys.exit("the ledger ended within the warm-up: set a shorter --warm-up")
    lines = files.read_lines(folder / files.EPISODES_JSONL)
    episodes = [EpisodeRecord.from_json(line) for line in lines]
    return row_of(case, sampler, episodes, time.monotonic() - start)


def row_of(
    case: Case, sampler: Sampler, episodes: list[EpisodeRecord], whole_s: float
) -> dict[str, Any]:
    """What was counted, per second and per hour."""
    counted = sampler.counted
    assert counted is not None
    steps_per_s = counted.steps / counted.wall_s
    ran = [record.steps for record in episodes if record.error is None]
    length = float(case.suite.nominal_steps)
    if case.policy == "embedded" and ran:
        length = sum(ran) / len(ran)
    cores = len(os.sched_getaffinity(0))
    return {
        "suite": case.suite.name,
        "policy": case.policy,
        "kernel": case.kernel,
        "device": case.device,
        "cores": cores,
        "simulators": case.simulators,
        "replan_steps": case.suite.replan_steps,
        "renderer": resolve_renderer(case.suite.renderer),
        "episodes_per_hour": round(3600 * steps_per_s / length),
        "steps_per_s": round(steps_per_s, 1),
        "calls_per_s": round(counted.calls / counted.wall_s, 1),
        "policy_busy": round(counted.policy_busy, 3),
        "simulators_busy": round(counted.simulators_busy, 2),
        "cpu_busy": round(sampler.cpu_busy / cores, 3),
        "gpu_busy": round(sum(sampler.gpu) / len(sampler.gpu) / 100, 3) if sampler.gpu else None,
        "call_ms": round(1e3 * counted.policy_s / max(1, counted.calls), 2),
        "step_ms": round(1e3 * counted.sim_s / max(1, counted.steps), 2),
        "steps_per_episode": round(length, 1),
        "seconds": round(counted.wall_s, 1),
        "episodes": len(ran),
        "successes": sum(record.success for record in episodes),
        "errors": len(episodes) - len(ran),
        "whole_s": round(whole_s, 1),
    }


def machine() -> str:
    """GPU, if there is one, and CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "CPU")
    if shutil.which("nvidia-smi") is None:
        return f"{cpu} ({platform.machine()})"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return ", ".join([*said.stdout.strip().splitlines()[:1], cpu])


def step_cpu_ms(suites: list[str], renderer: str, assets: str | None) -> dict[str, Any]:
    """CPU milliseconds of a control step, by robosuite and by us, each suite in a new process."""
    found = {}
    for suite in suites:
        words = [sys.executable, __file__, "--step", suite, "--renderer", renderer]
        words += ["--assets", assets] if assets else []
        run = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found[suite] = json.loads(run.stdout.splitlines()[-1])
    return found


def time_step(suite: SuiteSpec) -> None:
    """Print one suite's times."""
    from simulator_step import time_suite

    row = time_suite(suite, tasks=2)
    named = {"robosuite": "robosuite_ms", "ours": "ours_ms", "mujoco": "mujoco_ms"}
    print(json.dumps({name: row[column] for name, column in named.items()}))


def save(path: Path, new: list[dict[str, Any]], steps: dict[str, Any]) -> None:
    """Write the table; older rows of other cases stay."""
    old = json.loads(path.read_text()) if path.exists() else {"rows": [], "step_cpu_ms": {}}
    names = [tuple(row[name] for name in KEY) for row in new]
    kept = [row for row in old["rows"] if tuple(row[name] for name in KEY) not in names]
    found = {
        "machine": machine(),
        "rows": sorted(kept + new, key=lambda row: [row[name] for name in KEY]),
        "step_cpu_ms": {**old["step_cpu_ms"], **steps},
    }
    files.write_text(path, json.dumps(found, indent=2) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", nargs="+", default=["duq_mini"])
    parser.add_argument("--policy", choices=tuple(POLICIES), default="embedded")
    parser.add_argument(
        "--kernel", nargs="+", default=["none"], help="none, fake, int8, w4a8, mixed"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--simulators", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--replan", nargs="+", type=int, default=[5], help="steps per policy call")
    parser.add_argument("--warm-up", type=float, default=20.0, help="seconds per row, not counted")
    parser.add_argument("--seconds", type=float, default=30.0, help="seconds per row, counted")
    parser.add_argument("--renderer", choices=("auto", "osmesa", "egl"), default="auto")
    parser.add_argument("--checkpoint", help="folder of a pi0.5")
    parser.add_argument("--assets", help="folder of LIBERO's assets")
    parser.add_argument("--work", type=Path, help="folder that keeps the trials and their cache")
    parser.add_argument("--steps", action="store_true", help="also measure step_cpu_ms")
    parser.add_argument("--out", type=Path, help="e.g. benchmarks/results/throughput_h200.json")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parsed = parser.parse_args()

    def suite(name: str) -> SuiteSpec:
        assets = None if name == "duq_mini" else parsed.assets
        return suite_spec(name, parsed.renderer, assets)

    if parsed.step:
        time_step(suite(parsed.step))
        return
    from duqsweep.control.dispatch.devices import take_device
    from duqsweep.worker.cache import WorkerCache

    rows: list[dict[str, Any]] = []
    steps: dict[str, Any] = {}
    if parsed.steps:
        steps = step_cpu_ms(parsed.suite, parsed.renderer, parsed.assets)
        print(json.dumps(steps), flush=True)
        if parsed.out:
            save(parsed.out, rows, steps)
    take_device()
    # A shell that starts this in the background has it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    bench = WorkerCache()
    with tempfile.TemporaryDirectory() as folder:
        for name in parsed.suite:
            sweep_dir = (parsed.work or Path(folder)) / f"{name}-{parsed.policy}"
            sweep_dir.mkdir(parents=True, exist_ok=True)
            for kernel in parsed.kernel:
                for count, replan in itertools.product(parsed.simulators, parsed.replan):
                    played = replace(suite(name), replan_steps=replan)
                    case = Case(
                        played, parsed.policy, kernel, parsed.device, count, parsed.checkpoint
                    )
                    row = measure(case, sweep_dir, bench, parsed.warm_up, parsed.seconds)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                    if parsed.out:
                        save(parsed.out, rows, steps)


if __name__ == "__main__":
    main()
