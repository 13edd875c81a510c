"""The sampler `kghv` as OptunaHub loads it: `optunahub.load_local_module("…", registry_root=…)`."""

from duqsweep.control.kghv.optuna_sampler import KghvSampler

__all__ = ["KghvSampler"]
