"""Optuna's study written anew from the trials' files, which are the truth where both differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from duqsweep.control.config.grammar import Choice, Domain, IntRange
from duqsweep.control.config.space import Space
from duqsweep.control.study.frozen import OUTSIDE, PLAN, REASON, settings_of
from duqsweep.control.trials.reader import TrialView


def differs(study: optuna.Study, views: Sequence[TrialView]) -> bool:
    """Whether a study lacks a trial of the folder, or has other settings for it."""
    trials = study.get_trials(deepcopy=False)
    return any(
        view.number >= len(trials) or settings_of(trials[view.number]) != view.trial.params
        for view in views
    )


def restored(views: Sequence[TrialView], space: Space) -> list[FrozenTrial]:
    """Trials for a new study, which hears of their values when the search goes through them.

    A number without a folder (a repetition of another trial, an impossible point) becomes a
    failed trial, which samplers overlook.

    Args:
        views: All trials of the folder.
        space: Of the sweep.
    """
    known = {view.number: view for view in views}
    count = max(known, default=-1) + 1
    return [_restored(known[n], space) if n in known else _missing() for n in range(count)]


def _missing() -> FrozenTrial:
    reason = "it has no folder; the study was restored from the folders"
    return optuna.create_trial(state=TrialState.FAIL, user_attrs={REASON: reason})


def _restored(view: TrialView, space: Space) -> FrozenTrial:
    trial = view.trial
    attrs: dict[str, Any] = {} if trial.name is None else {PLAN: trial.name}
    domains = {parameter.key: parameter.domain for parameter in space.parameters}
    inside = all(value in domains.get(key, ()) for key, value in trial.params.items())
    is_plan = trial.name is not None and trial.name in space.plans
    if not inside or (is_plan and space.point_of(str(trial.name)) is None):
        attrs = {**attrs, OUTSIDE: dict(trial.params)}
        return optuna.create_trial(state=TrialState.RUNNING, user_attrs=attrs)
    return optuna.create_trial(
        state=TrialState.RUNNING,
        params=dict(trial.params),
        distributions={key: _distribution(domains[key]) for key in trial.params},
        user_attrs=attrs,
    )


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, IntRange):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log)
