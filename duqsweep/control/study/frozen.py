"""What the trials of a study carry beside Optuna's own fields."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from duqsweep.control.config.parameters import Params

# User attributes of trials.
PLAN = "plan"  # its name
OUTSIDE = "outside_params"  # settings of a plan that is no point of the space
DUPLICATE_OF = "duplicate_of"
VALUES = "values"
REASON = "reason"  # why it could not be evaluated
# A constraint, violated above 0: the trial was stopped before its first episode.
RULED_OUT = "ruled out"
_CONSTRAINTS = "constraints"  # begins the system attributes that Optuna keeps them in


def settings_of(trial: FrozenTrial) -> Params:
    """Its settings, those of a plan outside of the space too."""
    return dict(trial.user_attrs.get(OUTSIDE, trial.params))


def told_values(trial: FrozenTrial) -> tuple[float, ...]:
    """Its values; empty before it was told."""
    return tuple(trial.user_attrs.get(VALUES) or trial.values or ())


def reopened(numbers: Collection[int], trial: FrozenTrial) -> FrozenTrial:
    """The trial; without its values if it, or the one that it duplicates, is in `numbers`."""
    if trial.number not in numbers and trial.user_attrs.get(DUPLICATE_OF) not in numbers:
        return trial
    kept = (PLAN, OUTSIDE, DUPLICATE_OF)
    return optuna.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={key: value for key, value in trial.user_attrs.items() if key in kept},
        system_attrs={k: v for k, v in trial.system_attrs.items() if not _is_constraint(k)},
    )


def _is_constraint(key: str) -> bool:
    return key.startswith(_CONSTRAINTS)


def name_metrics(study: optuna.Study, names: Sequence[str]) -> None:
    """Let Optuna's tools call the objectives by their names; writes nothing where they do."""
    if study.metric_names == list(names):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(names))
