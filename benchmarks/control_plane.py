"""What the controller costs per trial, in sweeps of up to thousands of trials.

    python benchmarks/control_plane.py --trials 50 300 1000 3000 --out FILE.json

The real loop, search, study, front and mirror run; the trials are invented: another process writes
their files at once. All but the last trials of each size are put there before the controller
starts, which takes them in as those of an earlier controller; `--whole` lets the loop run all of
them.

`cpu_ms_per_trial` is the CPU time of the controller with all its threads over the last 50 trials,
at the loop's own pace and until the mirror has caught up; before them the loop sleeps shorter.
`rss_mb` is its resident memory and `files` the number of files of the sweep then. `load` is the
machine's average load of the last minute. `rest_share` is the share of a core that the controller
takes at the end while two trials play and nothing happens, and `commands` has the seconds, and
those of CPU, that commands take for the sweep with two objectives as it is then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.assignment import Assignment, Ended
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig, compose
from duqsweep.control.dispatch.jobfile import note_submission
from duqsweep.control.front.content import compute_front
from duqsweep.control.study.early_stopping import PruneSlow
from duqsweep.control.study.identity import identity
from duqsweep.control.study.optuna_study import open_study
from duqsweep.control.study.search import FixedBudgetSearch
from duqsweep.control.sweep import Parts, Sweep
from duqsweep.control.sweep_files import FrontFiles, TrialFiles
from duqsweep.control.tracking.mirror import mirror
from duqsweep.control.tracking.tracker import (
    MlflowTracker,
    NullTracker,
    SweepTracker,
    open_tracker,
)
from duqsweep.control.trial_status import TrialStatus, write_status
from duqsweep.control.trials.reader import TrialReader, read_trial
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.control.view.progress import NullProgress
from duqsweep.result import EpisodeRecord, LatencyStats, Vitals
from duqsweep.spec import Trial
from duqsweep.worker.ledger import make_ledger, write_ledger
from duqsweep.worker.summary import summarise

WINDOW = 50  # trials whose CPU time is measured
EPISODES = 20  # per trial
JOBS = 2
AHEAD = 2 * JOBS  # more of them that the loop runs before
REST_S = 10.0
QUIET_S = 3.0  # without work, after which the mirror has caught up
KEY = ("objectives", "tracking", "command", "trials")  # tells rows of a table apart
OBJECTIVES = ("success_rate", "episode_time_s", "weights_mb")
SPACE = [
    "+space={"
    + ",".join(
        [
            "policy.num_steps:'int(interval(1,10))'",
            "quant.block_size:'choice(16,32,64)'",
            "quant.smoothing:'interval(0,1)'",
            "quant.weight_bits.default:'choice(2,3,4,8)'",
        ]
    )
    + "}"
]


def main() -> int:
    """Print a table and write it as JSON; rows of other cases that the file has stay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[50, 300, 1000, 3000])
    parser.add_argument("--objectives", type=int, nargs="+", default=[2, 3], choices=(2, 3))
    parser.add_argument("--tracking", nargs="+", default=["none", "sqlite"])
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--whole", action="store_true", help="the loop runs all trials")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # measure one case here
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mirror", type=Path, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.worker:
        return write_trials(parsed.worker)
    if parsed.mirror:
        mirror(parsed.mirror)
        return 0
    if parsed.folder:
        (trials,), (objectives,), (tracking,) = parsed.trials, parsed.objectives, parsed.tracking
        config = sweep_config(parsed.folder, parsed.sampler, trials, objectives, tracking)
        measured = Measured(config, 0 if parsed.whole else max(0, trials - WINDOW - AHEAD))
        measured.run()
        save(parsed.out, measured.found)
        return 0
    for objectives, tracking in itertools.product(parsed.objectives, parsed.tracking):
        with tempfile.TemporaryDirectory() as folder:
            for trials in sorted(parsed.trials):
                run_case(parsed, Path(folder), [str(trials), str(objectives), tracking])
    return 0


def run_case(parsed: argparse.Namespace, folder: Path, case: Sequence[str]) -> None:
    """Measure one case in a process of its own, so that its memory is its own."""
    if parsed.whole:
        shutil.rmtree(folder / "sweep", ignore_errors=True)
    words = [sys.executable, __file__, "--folder", str(folder), "--sampler", parsed.sampler]
    for option, value in zip(("--trials", "--objectives", "--tracking"), case, strict=True):
        words += [option, value]
    words += ["--out", str(parsed.out or folder / "found.json"), *["--whole"] * parsed.whole]
    subprocess.run(words, check=True)


def save(path: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    """Put rows into a file; a row replaces the one of the same case."""
    table = json.loads(path.read_text()) if path.exists() else {}
    for name, rows in found.items():
        known = {tuple(row.get(key) for key in KEY): row for row in table.get(name, [])}
        known |= {tuple(row.get(key) for key in KEY): row for row in rows}
        table[name] = [
            known[key] for key in sorted(known, key=lambda key: (*map(str, key[:3]), key[3]))
        ]
    path.write_text(json.dumps(table, indent=1) + "\n")


def sweep_config(
    folder: Path, sampler: str, trials: int, objectives: int, tracking: str
) -> SweepConfig:
    """The sweep that is run."""
    names = ",".join(f"{{name: {name}}}" for name in OBJECTIVES[:objectives])
    return compose(
        [
            "name=control_plane",
            f"dir={folder}/sweep",
            *SPACE,
            "quant.include=dit_all",
            "enqueue=[reference]",
            f"objectives=[{names}]",
            f"budget.trials={trials}",
            f"budget.episodes_per_trial={EPISODES}",
            f"tracking={tracking}",
            f"sampler={sampler}",
        ]
    )


class Measured:
    """One sweep, measured over its last trials."""

    def __init__(self, config: SweepConfig, before: int) -> None:
        """Nothing runs yet.

        Args:
            config: Of the sweep; its folder may hold a smaller sweep of the same kind.
            before: How many trials are put there before the controller starts.
        """
        self._config = config
        self._trials = config.budget.trials
        self._before = before
        self._begun_s = time.process_time()  # CPU, at the begin of the window
        self._rest_begun: tuple[float, float] | None = None  # seconds of the clock and of CPU
        self._has_rested = False
        self._worker = Worker(config.directory, self._ended)
        self._tracker: SweepTracker = NullTracker()
        self.found: dict[str, list[dict[str, Any]]] = {"rows": [], "rest_share": [], "commands": []}

    def run(self) -> None:
        """Put the first trials there, let the loop run the last ones, then let it rest."""
        config = self._config
        space = Space.from_config(config)
        config.directory.mkdir(parents=True, exist_ok=True)
        files.write_json(config.directory / files.IDENTITY_JSON, identity(config, space))
        files.write_text(config.directory / files.SWEEP_YAML, config.yaml)
        write_ledger(config.directory / files.LEDGER_JSON, make_ledger(config.base.suite))
        self._worker.ended = put_trials(config, space, self._before)
        if config.tracking.name != "none" and self._worker.ended:
            front = compute_front(config.directory, config.objectives, margin=config.margin)
            files.write_json(config.directory / files.FRONT_JSON, front.to_json())
            # With the front, as an earlier controller left it there; its memory was its own.
            words = [sys.executable, __file__, "--mirror", str(config.directory)]
            subprocess.run(words, check=True)
        reader = TrialReader(config.directory)
        study = open_study(config, space, reader.read(), print)
        stopping = PruneSlow(config, reader)
        self._tracker = open_tracker(config.tracking.name, config.directory, reader=reader)
        self._tracker.sweep_started()
        parts = Parts(
            search=FixedBudgetSearch(study, space, config, stopping, reader),
            stopping=stopping,
            dispatcher=self._worker,
            trials=TrialFiles(config.directory, reader),
            front=FrontFiles(config.directory, config.objectives, margin=config.margin),
            progress=NullProgress(),
            tracker=self._tracker,
        )
        Sweep(config.directory, parts, self._sleep).run()
        self._ended(self._worker.ended)
        print(self._tracker.close(600.0) or "", end="")

    def _sleep(self, seconds: float) -> None:
        """The loop's own pace inside of the window, else only so long that the worker is done."""
        if self._worker.ended >= self._trials - JOBS and not self._has_rested:
            self._rest(seconds)
        in_window = self._trials - self._worker.ended <= WINDOW
        time.sleep(seconds if in_window else 0.01)

    def _rest(self, tick_s: float) -> None:
        """Hold back the ends of the last trials for a while; the loop turns at its own pace."""
        if self._rest_begun is None:
            self._worker.is_held = True
            self._settle()
            self._rest_begun = (time.monotonic(), time.process_time())
        wall_s = time.monotonic() - self._rest_begun[0]
        if wall_s > REST_S:
            cpu_s = time.process_time() - self._rest_begun[1]
            self._begun_s += cpu_s
            self._found("rest_share", share=round(cpu_s / wall_s, 4))
            self._worker.is_held, self._has_rested = False, True
        time.sleep(tick_s)

    def _ended(self, ended: int) -> None:
        if ended == self._trials:
            self._settle()
            self._note()
        elif ended + WINDOW == self._trials:
            self._settle()
            self._begun_s = time.process_time()

    def _settle(self) -> None:
        """Wait until the mirror has written everything."""
        quiet_s = 0.0
        while quiet_s < QUIET_S:
            before_s = time.process_time()
            time.sleep(1.0)
            is_quiet = time.process_time() - before_s < 0.02 and not self._is_behind()
            quiet_s = quiet_s + 1.0 if is_quiet else 0.0

    def _is_behind(self) -> bool:
        return isinstance(self._tracker, MlflowTracker) and self._tracker.is_behind

    def _note(self) -> None:
        cpu_s = time.process_time() - self._begun_s
        self._found(
            "rows",
            cpu_ms_per_trial=round(1e3 * cpu_s / WINDOW, 1),
            rss_mb=round(rss_mb(), 1),
            files=sum(len(names) for _, _, names in os.walk(self._config.directory)),
        )
        if len(self._config.objectives) == 2:
            self._commands()

    def _commands(self) -> None:
        for verb in ("status", "front"):
            words = [sys.executable, "-m", "duqsweep", verb, str(self._config.directory)]
            before, begun_s = os.times(), time.monotonic()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            after, wall_s = os.times(), time.monotonic() - begun_s
            cpu_s = sum(after[2:4]) - sum(before[2:4])
            self._found("commands", command=verb, s=round(wall_s, 2), cpu_s=round(cpu_s, 2))

    def _found(self, table: str, **values: Any) -> None:
        row = {
            "trials": self._trials,
            "objectives": len(self._config.objectives),
            "tracking": self._config.tracking.name,
            **values,
            "load": round(os.getloadavg()[0], 1),
        }
        self.found[table].append(row)
        print(row, flush=True)


def put_trials(config: SweepConfig, space: Space, count: int) -> int:
    """Write finished trials, as an earlier controller left them, until there are so many.

    Returns:
        How many trials the folder holds.
    """
    known = TrialReader(config.directory).read()
    draw = random.Random(config.seed)
    plans = [point for name in space.plans if (point := space.point_of(name))]
    points = itertools.chain(plans, (space.random_point(draw) for _ in itertools.count()))
    seen = {view.trial.fingerprint for view in known}
    number = len(known)
    while number < count:
        trial = space.trial(number, next(points))
        if trial.fingerprint in seen:
            continue
        seen.add(trial.fingerprint)
        folder = files.trial_dir(config.directory, number)
        folder.mkdir(parents=True)
        files.write_json(folder / files.SPEC_JSON, trial.to_json())
        assignment = Assignment(number, EPISODES)
        note_submission(config.directory, assignment, "local", "0000", number, "0")
        write_evaluation(folder)
        write_status(folder, TrialStatus("complete", f"played {EPISODES} episodes", EPISODES))
        ensure_reference(config.directory, [read_trial(folder)] if not number else [])
        number += 1
    return number


class Worker:
    """A dispatcher whose jobs are one process, which writes a trial's files at once."""

    capacity = JOBS

    def __init__(self, sweep_dir: Path, on_end: Any) -> None:
        self._dir = sweep_dir
        self._on_end = on_end
        self._pending: list[Assignment] = []
        self.ended = 0
        self.is_held = False
        words = [sys.executable, __file__, "--worker", str(sweep_dir)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)

    def submit(self, assignment: Assignment) -> None:
        """See `Dispatcher`."""
        note_submission(self._dir, assignment, "local", "0000", len(self._pending), "0")
        self._pending.append(assignment)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{assignment.trial}\n")
        self._process.stdin.flush()

    def pending(self) -> list[Assignment]:
        """See `Dispatcher`."""
        return list(self._pending)

    def reattach(self) -> list[Assignment]:
        """See `Dispatcher`."""
        return []

    def poll(self) -> list[Ended]:
        """See `Dispatcher`."""
        over = [one for one in self._pending if not self.is_held and self._is_done(one.trial)]
        for one in over:
            self._pending.remove(one)
            self._on_end(self.ended)
            self.ended += 1
        return [Ended(one, None) for one in over]

    def _is_done(self, trial: int) -> bool:
        return (files.trial_dir(self._dir, trial) / files.RESULT_JSON).exists()

    def stop(self, trial: int, reason: str) -> None:
        """Nothing: it is as good as done."""

    def close(self, end_jobs: bool) -> int:
        """See `Dispatcher`."""
        return 0


def write_trials(sweep_dir: Path) -> int:
    """Write the files of the trials whose numbers stand on standard input."""
    for line in sys.stdin:
        write_evaluation(files.trial_dir(sweep_dir, int(line)))
    return 0


def write_evaluation(folder: Path) -> None:
    """Write what a worker writes of a trial."""
    trial = Trial.from_json(files.read_json(folder / files.SPEC_JSON))
    vitals, episodes = invented(trial)
    files.write_json(folder / files.VITALS_JSON, vitals.to_json())
    lines = "".join(f"{json.dumps(episode.to_json())}\n" for episode in episodes)
    files.write_text(folder / files.EPISODES_JSONL, lines)
    result = summarise(tuple(episodes), "complete", f"played {EPISODES} episodes")
    files.write_json(folder / files.RESULT_JSON, result.to_json())


def invented(trial: Trial) -> tuple[Vitals, list[EpisodeRecord]]:
    """Lifelike numbers: more bits and more steps succeed more often, and take longer."""
    draw = random.Random(trial.number)
    bits = int(trial.params.get("quant.weight_bits.default", 16))
    steps = trial.spec.policy.num_steps
    call_ms = 10.0 + 3.0 * steps * draw.uniform(0.9, 1.1)
    suite = trial.spec.suite
    layers = {
        f"paligemma_with_expert.gemma_expert.model.layers.{i}.mlp.{name}_proj": (bits, 8)
        for i in range(6)
        for name in ("gate", "up", "down")
    }
    vitals = Vitals(
        layers_quantized=len(layers),
        bits=layers,
        mean_weight_bits=float(bits),
        weights_mb=round(3 + bits * draw.uniform(0.7, 0.8), 3),
        modelled={"expert_forwards_per_call": float(steps)},
        call_ms=LatencyStats(call_ms, 1.1 * call_ms, 40),
        parts_ms={"vision": 3.0, "llm": 7.0, "dit": call_ms - 10.0},
        reference_call_ms=42.0,
        speedup=42.0 / call_ms,
        compile_s=0.0,
        action_error=0.5 / bits,
        kernel="fake",
        hardware={"cpu": "invented", "cores": 2, "device": "cpu"},
        versions={"duqsweep": "invented"},
        git=None,
    )
    rate = min(0.97, 0.2 + 0.06 * bits + 0.05 * steps)
    episodes = [
        EpisodeRecord(
            i=i,
            suite=suite.name,
            task=i % suite.tasks,
            init_state=i // suite.tasks,
            seed=7,
            success=draw.random() < rate,
            steps=draw.randrange(60, 150),
            calls=20,
            policy_s=0.5,
            sim_s=2.0,
            wall_s=2.5,
        )
        for i in range(EPISODES)
    ]
    return vitals, episodes


def rss_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
