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

    def _get_internal_repr(
        self,
        trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
        study: optuna.Study,
    ) -> dict[str, np.ndarray]:
        """As Optuna's, but each value of a finished trial is converted once."""
        if len(search_space) > 1:
            return super()._get_internal_repr(trials, search_space, study)
        ((name, distribution),) = search_space.items()
        numbers = self._windows.numbers(name, distribution)
        return {name: np.asarray([x for trial in trials if (x := numbers(trial)) is not None])}


class Windows:
    """What the parameters of one trial are drawn from: the same trials for all of them."""

    def __init__(self) -> None:
        """No trial is known."""
        self._last: tuple[int, _Window] | None = None
        self._numbers: dict[str, _Numbers] = {}
        self._front = _Front()

    def of(self, study: optuna.Study, trial: FrozenTrial) -> _Window:
        """The study as this trial's sampler sees it."""
        if self._last is None or self._last[0] != trial.number:
            self._last = (trial.number, _Window(study, self._front))
        return self._last[1]

    def numbers(self, name: str, distribution: BaseDistribution) -> _Numbers:
        """A parameter's values as numbers."""
        known = self._numbers.get(name)
        if known is None or known.distribution != distribution:
            known = self._numbers[name] = _Numbers(name, distribution)
        return known


class _Numbers:
    """The values of one parameter as Optuna's numbers; those of finished trials do not change."""

    def __init__(self, name: str, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        self._name = name
        self._known: dict[int, float | None] = {}  # by trial

    def __call__(self, trial: FrozenTrial) -> float | None:
        """The number of a finished trial; None for one without this parameter."""
        try:
            return self._known[trial._trial_id]
        except KeyError:
            has = self._name in trial.params
            value = self.distribution.to_internal_repr(trial.params[self._name]) if has else None
            self._known[trial._trial_id] = value
            return value


class _Front:
    """The trials of a growing study that no other beats; each trial is compared once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()  # ids of trials
        self._members: list[FrozenTrial] = []

    def of(
        self, finished: list[FrozenTrial], directions: list[StudyDirection]
    ) -> list[FrozenTrial]:
        """Its members by number; each call has the trials of the one before, and new ones."""
        new = [trial for trial in finished if trial._trial_id not in self._seen]
        self._seen.update(trial._trial_id for trial in new)
        valued = [trial for trial in new if trial.state == TrialState.COMPLETE]
        if valued:
            all_of_them = sorted([*self._members, *valued], key=lambda trial: trial.number)
            signs = [-1.0 if way == StudyDirection.MAXIMIZE else 1.0 for way in directions]
            losses = np.array([trial.values for trial in all_of_them]) * signs
            self._members = [all_of_them[i] for i in np.flatnonzero(on_front(losses[None])[0])]
        return self._members


class _Window:
    """A study of which the sampler sees some finished trials only."""

    def __init__(self, study: optuna.Study, front: _Front) -> None:
        self._study = study
        finished = study._get_trials(deepcopy=False, states=_FINISHED, use_cache=True)
        if len(finished) > RECENT:
            best = front.of(finished, study.directions)[-BEST:]
            chosen = {trial.number: trial for trial in [*best, *finished[-RECENT:]]}
            finished = [chosen[number] for number in sorted(chosen)]
        self._trials = finished

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
