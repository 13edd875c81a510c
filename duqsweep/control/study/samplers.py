"""Optuna's samplers by the names of conf/sampler/."""

from __future__ import annotations

from functools import partial

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler

from duqsweep.control.config.schema import SamplerConfig
from duqsweep.control.study.per_trial import PerTrialSampler
from duqsweep.control.study.windowed_tpe import WindowedTPE, Windows


def make_sampler(config: SamplerConfig, seed: int) -> BaseSampler:
    """The sampler of a sweep; `grid` and `kghv` enqueue their points.

    What it proposes follows from the seed, the trial's number and the study.
    """
    return PerTrialSampler(partial(_seeded, config, Windows()), seed)


def _seeded(config: SamplerConfig, windows: Windows, seed: int) -> BaseSampler:
    if config.name == "tpe":
        return WindowedTPE(windows, seed=seed, n_startup_trials=config.startup_trials)
    if config.name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=config.population)
    if config.name == "gp":
        return GPSampler(seed=seed, n_startup_trials=config.startup_trials)
    return RandomSampler(seed=seed)
