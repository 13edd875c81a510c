"""What a sweep will take, by what was played before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from composed import composed_in
from synthetic_sweep import make_trial, make_vitals, write_trial

from duqsweep import files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.expected import Expected, expected
from duqsweep.result import Throughput

WORDS = ("name=x", "+sweep=smoke", "budget.trials=10", "budget.episodes_per_trial=12")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def play(sweep_dir: Path, number: int, episode_s: float, measuring_s: int = 20) -> None:
    """Write a trial that was measured in 20 s or more and has played 6 episodes."""
    trial = make_trial(number)
    write_trial(sweep_dir, trial, make_vitals(trial, 1.5))
    folder = files.trial_dir(sweep_dir, number)
    started = (folder / files.SPEC_JSON).stat().st_mtime
    os.utime(folder / files.VITALS_JSON, (started + measuring_s,) * 2)
    counted = Throughput(1, wall_s=6 * episode_s, episodes=6)
    files.write_json(folder / files.THROUGHPUT_JSON, counted.to_json())


def on(place: Path, *words: str) -> SweepConfig:
    return composed_in(place / "x", *WORDS, *words)


def found(config: SweepConfig) -> Expected:
    result = expected(config)
    assert result is not None
    return result


def test_trials_of_the_same_policy_give_the_time(tmp_path: Path) -> None:
    for number, episode_s in enumerate((2.0, 3.0, 10.0)):
        play(tmp_path / "earlier", number, episode_s, 50 if number == 0 else 20)
    result = found(on(tmp_path, "launcher.jobs=2"))
    # 30 s for the first trial's observations, then (10 × 20 + 120 × 3) s on two workers.
    assert (result.time_s, result.workers, result.gpu_hours) == (30 + 560 / 2, 2, 0.0)
    assert result.pace.source == "3 trials of earlier on AMD EPYC 7V12"


def test_the_sweeps_own_trials_come_first(tmp_path: Path) -> None:
    play(tmp_path / "earlier", 0, 2.0)
    play(tmp_path / "x", 0, 5.0)
    assert found(on(tmp_path)).pace.episode_s == 5.0


def test_what_is_damaged_or_of_another_policy_says_nothing(tmp_path: Path) -> None:
    play(tmp_path / "a", 0, 2.0)
    (files.trial_dir(tmp_path / "a", 0) / files.VITALS_JSON).write_text("{")
    play(tmp_path / "b", 0, 2.0)
    checkpoint = on(tmp_path, f"policy.checkpoint={tmp_path}/other")
    assert found(checkpoint).pace.source == found(on(tmp_path / "nothing")).pace.source


def test_without_any_the_documentation_is_taken(tmp_path: Path) -> None:
    result = found(on(tmp_path, "launcher.jobs=2"))
    assert result.time_s == 35 + (10 * 6 + 120 * 1.2) / 2
    assert "docs/results/dit_speed" in result.pace.source


def test_gpus_are_counted_in_hours(tmp_path: Path) -> None:
    result = found(on(tmp_path, "launcher=slurm", "launcher.jobs=4", "launcher.gpus_per_node=2"))
    assert result.workers == 4
    assert result.gpu_hours == pytest.approx(result.time_s / 3600 * 4 * 2)


def test_no_more_workers_than_trials(tmp_path: Path) -> None:
    assert found(on(tmp_path, "launcher.jobs=64")).workers == 10


def test_what_was_never_played_is_not_guessed(tmp_path: Path) -> None:
    assert expected(on(tmp_path, "suite=libero_spatial")) is None
