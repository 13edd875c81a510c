"""Changes finished trials of a study, which Optuna itself never does: the study is written anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from duqsweep.control.study.frozen import name_metrics

WHOLE = "whole"  # user attribute of the copy, once every trial is in it


def rebuild(study: optuna.Study, change: Callable[[FrozenTrial], FrozenTrial]) -> optuna.Study:
    """The study under the same name with every trial passed through `change`; numbers stay.

    Whoever is killed in between leaves a whole study behind, the old or the new one;
    `finish_rebuilding` must be called before the study is opened.
    """
    storage, name = study._storage, study.study_name
    copy = _create(storage, _copy_name(name), study)
    copy.add_trials([change(trial) for trial in study.get_trials(deepcopy=False)])
    copy.set_user_attr(WHOLE, True)
    finish_rebuilding(storage, name)
    rebuilt = optuna.load_study(study_name=name, storage=storage, sampler=study.sampler)
    return rebuilt


def finish_rebuilding(storage: BaseStorage, name: str) -> None:
    """Put a whole copy in the study's place, and forget one that is not whole."""
    try:
        copy = optuna.load_study(study_name=_copy_name(name), storage=storage)
    except KeyError:
        return
    if copy.user_attrs.get(WHOLE):
        with suppress(KeyError):  # killed after it was deleted
            optuna.delete_study(study_name=name, storage=storage)
        new = _create(storage, name, copy)
        new.add_trials(copy.get_trials(deepcopy=False))
    optuna.delete_study(study_name=copy.study_name, storage=storage)


def _copy_name(name: str) -> str:
    return f"{name} (being rebuilt)"


def _create(storage: BaseStorage, name: str, like: optuna.Study) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name=name, directions=like.directions)
    for key, value in like.user_attrs.items():
        if key != WHOLE:
            study.set_user_attr(key, value)
    if like.metric_names is not None:
        name_metrics(study, like.metric_names)
    return study
