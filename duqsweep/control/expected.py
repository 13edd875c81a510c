"""How long a sweep will take, from trials of the same policy that were played before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from duqsweep import files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.dispatch.devices import cuda_devices
from duqsweep.control.trials.reader import TrialView, read_trial
from duqsweep.errors import EvaluationError, SpecError

MOST_FOLDERS, MOST_TRIALS = 20, 20  # that are looked at: the newest ones
_CPU, _GPU = "cpu", "cuda"


@dataclass(frozen=True)
class Pace:
    """What trials of a policy take, each on one worker."""

    startup_s: float  # of a worker, once: loading, the fixed observations, simulators
    measuring_s: float  # of a trial before its first episode
    episode_s: float  # with all of a worker's simulators
    source: str  # where this was measured


@dataclass(frozen=True)
class Expected:
    """What a sweep will take."""

    time_s: float  # until its end
    workers: int  # at once
    gpu_hours: float  # 0 without GPUs
    pace: Pace


_H200 = "one NVIDIA H200 with 16 cores (benchmarks/NOTES.md)"
# (policy, first letters of the suite, device) → what was measured for the documentation.
_DOCUMENTED = {
    ("embedded", "duq_mini", _CPU): Pace(
        35, 6, 1.2, "two cores of an AMD EPYC (docs/results/dit_speed)"
    ),
    ("embedded", "duq_mini", _GPU): Pace(
        45, 9, 0.1, "one NVIDIA H200 with 16 cores (docs/results/dit_speed_gpu)"
    ),
    ("pi05_libero", "libero_10", _GPU): Pace(80, 9, 0.67, _H200),
    ("pi05_libero", "libero_", _GPU): Pace(80, 9, 0.32, _H200),
    ("pi05_libero", "recorded", _GPU): Pace(
        40, 9, 0.0, "one NVIDIA H200 (docs/results/latency_h200)"
    ),
}


def expected(config: SweepConfig) -> Expected | None:
    """What the sweep takes at most; None where nothing like it was played before.

    Trials of this sweep and of those beside it come first, then what the documentation measured.
    """
    device = _GPU if _gpus(config) else _CPU
    pace = _seen(config, device) or _documented(config, device)
    if pace is None:
        return None
    trials, episodes = config.budget.trials, config.total_episodes
    workers = min(_workers(config), config.most_trials)
    work_s = trials * pace.measuring_s + episodes * pace.episode_s
    time_s = pace.startup_s + work_s / workers
    return Expected(time_s, workers, workers * time_s / 3600 * _gpus(config), pace)


def _gpus(config: SweepConfig) -> int:
    """GPUs of a worker."""
    if config.launcher.name == "slurm":
        return config.launcher.gpus_per_node
    return int(config.base.runtime.device != _CPU and bool(cuda_devices()))


def _workers(config: SweepConfig) -> int:
    if config.launcher.name == "inline":
        return 1
    if config.launcher.jobs or config.launcher.name == "slurm":
        return max(1, config.launcher.jobs)
    return len(cuda_devices()) or len(os.sched_getaffinity(0))


def _documented(config: SweepConfig, device: str) -> Pace | None:
    policy, suite = config.base.policy.name, config.base.suite.name
    return next(
        (
            pace
            for (known, start, where), pace in _DOCUMENTED.items()
            if (known, where) == (policy, device) and suite.startswith(start)
        ),
        None,
    )


def _seen(config: SweepConfig, device: str) -> Pace | None:
    """From the newest sweep whose trials are of the same policy, suite and kind of device."""
    for folder in _folders(config):
        views = [view for view in _newest(folder) if _is_alike(view, config, device)]
        measuring = [
            (view.measured_ms - view.started_ms) / 1000 for view in views if view.measured_ms
        ]
        played = [t for view in views if (t := view.throughput) is not None and t.episodes]
        if not measuring or not (played or not config.budget.episodes_per_trial):
            continue
        episode_s = median(t.wall_s / t.episodes for t in played) if played else 0.0
        typical_s = median(measuring)
        vitals = views[0].vitals
        machine = vitals.hardware.get("gpu") or vitals.hardware.get("cpu") if vitals else None
        source = f"{len(views)} trials of {folder.name}" + (f" on {machine}" if machine else "")
        return Pace(max(measuring) - typical_s, typical_s, episode_s, source)
    return None


def _folders(config: SweepConfig) -> list[Path]:
    """The sweep's own folder, then those beside it, the newest first."""
    own = config.directory
    beside = {
        path.parent: path.stat().st_mtime for path in own.parent.glob(f"*/{files.TRIALS_DIR}")
    }
    newest = sorted(beside.keys() - {own}, key=beside.__getitem__, reverse=True)
    return [own, *newest[:MOST_FOLDERS]]


def _newest(folder: Path) -> Iterator[TrialView]:
    for trial_dir in sorted((folder / files.TRIALS_DIR).glob("[0-9]*"), reverse=True)[:MOST_TRIALS]:
        # What is damaged, or of another version, says nothing of a pace.
        with suppress(EvaluationError, SpecError, FileNotFoundError):
            yield read_trial(trial_dir)


def _is_alike(view: TrialView, config: SweepConfig, device: str) -> bool:
    spec, base, vitals = view.trial.spec, config.base, view.vitals
    return (
        vitals is not None
        and (spec.policy.name, spec.policy.checkpoint) == (base.policy.name, base.policy.checkpoint)
        and spec.suite.name == base.suite.name
        and vitals.hardware.get("device") == device
    )
