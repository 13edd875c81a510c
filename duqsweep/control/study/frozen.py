"""What the trials of a study carry beside Optuna's own fields."""

from __future__ import annotations

from collections.abc import Collection

import optuna
from optuna.trial import FrozenTrial, TrialState

from duqsweep.control.config.parameters import Params

# User attributes of trials.
PLAN = "plan"  # its name
OUTSIDE = "outside_params"  # settings of a plan that is no point of the space
DUPLICATE_OF = "duplicate_of"
VALUES = "values"
REASON = "reason"  # why it could not be evaluated


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
        system_attrs=trial.system_attrs,
    )
