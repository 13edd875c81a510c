"""Optuna's samplers by the names of conf/sampler/."""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler

from duqsweep.control.config.schema import SamplerConfig
from duqsweep.control.study.windowed_tpe import WindowedTPE


def make_sampler(config: SamplerConfig, seed: int) -> BaseSampler:
    """The sampler of a sweep; `grid` and `kghv` enqueue their points."""
    if config.name == "tpe":
        return WindowedTPE(seed=seed, n_startup_trials=config.startup_trials)
    if config.name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=config.population)
    if config.name == "gp":
        return GPSampler(seed=seed, n_startup_trials=config.startup_trials)
    return RandomSampler(seed=seed)
