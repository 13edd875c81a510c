"""A sampler whose random numbers follow from the seed, the trial and the parameter alone.

So a controller that was killed and started again proposes what it would have proposed anyway: what
else a sampler knows, it reads from the study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState


class PerTrialSampler(BaseSampler):
    """Takes a newly seeded sampler for each draw."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        """Nothing is drawn yet.

        Args:
            make: A sampler with the given seed, of the same kind each time.
            seed: Of the sweep.
        """
        self._make = make
        self._seed = seed
        self._base = make(seed)  # for all that draws nothing

    def _seeded(self, trial: FrozenTrial, what: str) -> BaseSampler:
        text = f"{self._seed}/{trial.number}/{what}"
        return self._make(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See Optuna."""
        return self._base.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna."""
        return self._seeded(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See Optuna."""
        sampler = self._seeded(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """See Optuna."""
        self._base.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """See Optuna."""
        self._base.after_trial(study, trial, state, values)
