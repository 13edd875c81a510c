"""Optuna's TPE for sweeps of any length: what a proposal costs stops growing with the trials."""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import (
    _split_trials,
    default_gamma,
    default_gamma_multiobjective,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from duqsweep.control.front.pareto import on_front

RECENT = 256  # finished trials that a proposal takes into account, beside the best ones
BEST = 64  # at most so many trials of the front, the latest ones
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class WindowedTPE(TPESampler):
    """TPE over the trials on the front and the latest others, at most `RECENT` + `BEST`.

    Optuna's own sorts all finished trials for each parameter that it draws. Up to `RECENT` trials
    both propose the same.
    """

    def __init__(self, windows: Windows, **options: Any) -> None:
        """TPE with Optuna's options; `windows` may be shared by many samplers."""
        super().__init__(**options)
        self._windows = windows

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna."""
        seen = cast(optuna.Study, self._windows.of(study, trial))
        return super().sample_relative(seen, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See Optuna."""
        seen = cast(optuna.Study, self._windows.of(study, trial))
        return super().sample_independent(seen, trial, param_name, param_distribution)

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's, but the trials are divided once, not anew for each parameter."""
        below, above = cast(_Window, study).divided
        model_below = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        model_above = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        samples = model_below.sample(self._rng.rng, self._n_ei_candidates)
        gains = self._compute_acquisition_func(samples, model_below, model_above)
        best = TPESampler._compare(samples, gains)
        return {name: way.to_external_repr(best[name]) for name, way in search_space.items()}


class Windows:
    """What the parameters of one trial are drawn from: the same trials for all of them."""

    def __init__(self) -> None:
        """No trial is known."""
        self._last: tuple[int, _Window] | None = None

    def of(self, study: optuna.Study, trial: FrozenTrial) -> _Window:
        """The study as this trial's sampler sees it."""
        if self._last is None or self._last[0] != trial.number:
            self._last = (trial.number, _Window(study))
        return self._last[1]


class _Window:
    """A study of which the sampler sees some finished trials only."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        finished = study._get_trials(deepcopy=False, states=_FINISHED, use_cache=True)
        self._trials = finished if len(finished) <= RECENT else _chosen(finished, study.directions)

    @cached_property
    def divided(self) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """The better trials and the others, as TPE divides them."""
        objectives = len(self._study.directions)
        gamma = default_gamma if objectives == 1 else default_gamma_multiobjective
        study = cast(optuna.Study, self)
        return _split_trials(study, self._trials, gamma(len(self._trials)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool, states: Container[TrialState], use_cache: bool
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if trial.state in states]


def _chosen(trials: list[FrozenTrial], directions: list[StudyDirection]) -> list[FrozenTrial]:
    valued = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    signs = [-1.0 if way == StudyDirection.MAXIMIZE else 1.0 for way in directions]
    losses = np.array([trial.values for trial in valued]) * signs
    best = np.flatnonzero(on_front(losses[None])[0])[-BEST:].tolist() if valued else []
    numbers = {valued[i].number for i in best} | {trial.number for trial in trials[-RECENT:]}
    return [trial for trial in trials if trial.number in numbers]
