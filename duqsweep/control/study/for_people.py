"""`dashboard.log`: a sweep's study for Optuna's plots and dashboard, the reference included.

In `study.log` a plan that is no point of the space, as the reference mostly is, has neither
parameters nor values that a sampler could learn from. So no plot shows it. Nothing samples from
this copy. Its space is larger by what such plans set, so each of them is a true point of it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from duqsweep import files
from duqsweep.control.config.grammar import Choice, IntRange
from duqsweep.control.config.parameters import Parameter, Params
from duqsweep.control.config.space import Space
from duqsweep.control.study.frozen import DUPLICATE_OF, OUTSIDE, VALUES, name_metrics
from duqsweep.control.study.storage import open_journal
from duqsweep.setting import Scalar


def write_dashboard(directory: Path, study: optuna.Study, space: Space) -> None:
    """Write `dashboard.log` anew; trials have the numbers that they have in the sweep.

    Args:
        directory: The sweep's folder.
        study: Of the sweep.
        space: Of the sweep.
    """
    trials = [copy.deepcopy(trial) for trial in study.get_trials(deepcopy=False)]
    given = [trial.user_attrs[OUTSIDE] for trial in trials if OUTSIDE in trial.user_attrs]
    larger = _LargerSpace(space, given)
    for trial in trials:
        larger.place(trial)
    path = directory / files.DASHBOARD_LOG
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    made = optuna.create_study(
        storage=open_journal(unfinished),
        study_name=f"{study.study_name} with the reference",
        directions=study.directions,
    )
    if study.metric_names is not None:
        name_metrics(made, study.metric_names)
    made.add_trials(trials)
    os.replace(unfinished, path)


class _LargerSpace:
    """A sweep's space, and what the plans outside of it set."""

    def __init__(self, space: Space, given: Sequence[Params]) -> None:
        """`given`: the settings of each such plan."""
        self._base = {key: v for key, v in space.base.settings.items() if v is not None}
        self._searched = {parameter.key: parameter for parameter in space.parameters}
        # Settings that are not searched, and that some plan has otherwise than the base.
        others = (key for params in given for key in params if params[key] != self._base.get(key))
        self._fixed = [key for key in dict.fromkeys(others) if key not in self._searched]
        points = [self._point(params) for params in given]
        self._distributions = {
            key: _distribution(
                self._searched.get(key),
                self._base.get(key),
                [point[key] for point in points if key in point],
            )
            for key in (*self._searched, *self._fixed)
        }

    def place(self, trial: FrozenTrial) -> None:
        """Make a trial of the sweep's study one of this space."""
        params = dict(trial.params)
        if OUTSIDE in trial.user_attrs:
            params = self._point(trial.user_attrs[OUTSIDE])
            if VALUES in trial.user_attrs and DUPLICATE_OF not in trial.user_attrs:
                trial.values = trial.user_attrs[VALUES]
                trial.state = TrialState.COMPLETE
        elif params or not self._searched:  # what is not searched is as the base has it
            params |= {key: self._base[key] for key in self._fixed if key in self._base}
        trial.params = params
        trial.distributions = {key: self._distributions[key] for key in params}

    def _point(self, given: Params) -> Params:
        """The settings of a plan, with those that it leaves to the base and all trials have."""
        settings = {**self._base, **given}
        always = [key for key, p in self._searched.items() if p.condition is None or key in given]
        return {key: settings[key] for key in (*always, *self._fixed) if key in settings}


def _distribution(
    parameter: Parameter | None, base: Scalar | None, more: Collection[Scalar]
) -> BaseDistribution:
    """A parameter's domain made larger; of the values that occur, where it is not searched."""
    domain = Choice(() if base is None else (base,)) if parameter is None else parameter.domain
    if isinstance(domain, Choice):
        values = [*domain.values, *more]
        return CategoricalDistribution(list(dict.fromkeys(values)))
    if isinstance(domain, IntRange):
        whole = [domain.low, domain.high, *(int(value) for value in more)]
        fits = all((value - domain.low) % domain.step == 0 for value in whole[2:])
        step = domain.step if fits else 1
        return IntDistribution(min(whole), max(whole), log=domain.log, step=step)
    numbers = [domain.low, domain.high, *(float(value) for value in more)]
    return FloatDistribution(min(numbers), max(numbers), log=domain.log)
