"""Optuna's samplers by the names of conf/sampler/."""

from __future__ import annotations

import importlib.util

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler

from duqsweep.control.config.schema import SamplerConfig
from duqsweep.control.study.windowed_tpe import WindowedTPE
from duqsweep.errors import ConfigError


def make_sampler(config: SamplerConfig, seed: int) -> BaseSampler:
    """The sampler of a sweep; `grid` draws nothing itself, its points are enqueued.

    Raises:
        ConfigError: It needs a package that is not installed.
    """
    if config.name == "tpe":
        return WindowedTPE(seed=seed, n_startup_trials=config.startup_trials)
    if config.name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=config.population)
    if config.name == "gp":
        if importlib.util.find_spec("scipy") is None:
            raise ConfigError("sampler=gp needs scipy: pip install 'duqsweep[gp]'")
        return GPSampler(seed=seed, n_startup_trials=config.startup_trials)
    return RandomSampler(seed=seed)
