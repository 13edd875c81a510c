"""Optuna's study of a sweep: what to try next, and what became of it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from duqsweep.control.config.grammar import Choice, IntRange
from duqsweep.control.config.parameters import Parameter, Params
from duqsweep.control.config.space import GRID_LIMIT, ProposedTrial, Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.study.for_people import write_dashboard
from duqsweep.control.study.frozen import (
    DUPLICATE_OF,
    OUTSIDE,
    PLAN,
    REASON,
    RULED_OUT,
    VALUES,
    name_metrics,
    reopened,
    settings_of,
    told_values,
)
from duqsweep.control.study.identity import check_folder, check_study, identity
from duqsweep.control.study.rebuild import finish_rebuilding, rebuild
from duqsweep.control.study.restore import differs, restored
from duqsweep.control.study.samplers import make_sampler
from duqsweep.control.study.storage import open_storage
from duqsweep.control.trials.reader import TrialView
from duqsweep.errors import ConfigError
from duqsweep.setting import Scalar

log = logging.getLogger(__name__)

REFERENCE = "reference"  # the plan, and an attribute of the study with its values


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that the study knows the values of."""

    proposed: ProposedTrial
    values: tuple[float, ...]
    duplicate_of: int | None
    attrs: Mapping[str, Any]  # as given to `tell`


class OptunaStudy:
    """Ask and tell, resumable; one process at a time (`controller_lock.controller_lock`).

    A plan that is no point of the space (another kernel, nothing quantized) is kept from the
    sampler: its trial has no parameters and, once told, the state PRUNED, with its values as an
    attribute. So has a trial that equals another, which else would be among the best ones twice.
    All other trials end COMPLETE, crashes too: samplers overlook FAIL and ask for the same point
    again. One that was ruled out before its first episode violates the constraint `RULED_OUT`.
    """

    def __init__(self, study: optuna.Study, space: Space, grid: Iterator[Params] | None) -> None:
        """Use `open_study`."""
        self._space = space
        self._grid = grid
        self._take(study)

    def _take(self, study: optuna.Study) -> None:
        """Read what the study knows."""
        self._study = study
        self._trials: dict[int, optuna.Trial] = {}
        frozen = study.get_trials(deepcopy=False)
        self._plans = {trial.user_attrs.get(PLAN) for trial in frozen}
        self._values = {t.number: told_values(t) for t in frozen if t.state.is_finished()}
        self._duplicates: dict[int, list[int]] = {}  # original → those that wait for its values
        for trial in frozen:
            if trial.state == TrialState.RUNNING and DUPLICATE_OF in trial.user_attrs:
                self._wait_for(trial.user_attrs[DUPLICATE_OF], trial.number)
        for original in self._values.keys() & self._duplicates.keys():
            self._tell_duplicates(original)  # the controller was killed before that
        # Enqueued by an earlier controller and not asked for yet.
        self._enqueued = sum(trial.state == TrialState.WAITING for trial in frozen)

    def ask(self, point: Params | None = None) -> ProposedTrial | None:
        """The next trial: enqueued plans first, then what the sampler proposes.

        Args:
            point: Take this point of the space instead of the sampler's.

        Returns:
            None when there is nothing (left) to ask for: no space, or every point of the grid was.
        """
        if self._enqueued:
            self._enqueued -= 1
            return self._ask_sampler()
        if point is None:
            plan = next((name for name in self._space.plans if name not in self._plans), None)
            if plan is not None:
                return self._ask_plan(plan)
            if not self._space.parameters:
                return None
            if self._grid is not None:
                point = next(self._grid, None)
                if point is None:
                    return None
        if point is not None:
            self._study.enqueue_trial(point)
        return self._ask_sampler()

    def has_plans(self) -> bool:
        """Whether `ask` gives a plan, or a trial that an earlier controller enqueued."""
        return bool(self._enqueued) or any(name not in self._plans for name in self._space.plans)

    def running(self) -> list[ProposedTrial]:
        """Trials that were proposed and not told, duplicates left out, by number."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [self._resume(t) for t in trials if DUPLICATE_OF not in t.user_attrs]

    def told(self) -> list[int]:
        """Numbers of the trials that were told, duplicates left out."""
        return [told.proposed.number for told in self.history() if told.duplicate_of is None]

    def reopen(self, numbers: Collection[int]) -> None:
        """Forget the values of these trials and of their duplicates: they run again."""
        if numbers:
            self._take(rebuild(self._study, partial(reopened, numbers)))

    def tell(self, number: int, values: Sequence[float], attrs: Mapping[str, Any]) -> None:
        """Finish a trial, and every duplicate that waits for it; nothing if it was told before.

        Args:
            number: Of a trial that was proposed.
            values: One per objective, finite.
            attrs: What else to keep of it: outcome, reason, counts; plain JSON data.
        """
        if number not in self._values:
            self._finish(number, values, attrs)
        self._tell_duplicates(number)

    def note(self, number: int, attrs: Mapping[str, Any]) -> None:
        """Keep attributes of a trial that was proposed and not told yet."""
        trial = self._trial(number)
        for key, value in attrs.items():
            trial.set_user_attr(key, value)

    def remember(self, key: str, value: Any) -> None:
        """Keep plain JSON data of the search as an attribute of the study."""
        if self.recall(key) != value:
            self._study.set_user_attr(key, value)

    def recall(self, key: str) -> Any:
        """What was kept under `key`; None where nothing was."""
        return self._study.user_attrs.get(key)

    def refuse(self, number: int, reason: str) -> None:
        """Finish a trial that cannot be evaluated; it has no values, and samplers overlook it."""
        self._trial(number).set_user_attr(REASON, reason)
        self._study.tell(number, state=TrialState.FAIL)
        self._values[number] = ()

    def duplicate(self, number: int, original: int) -> None:
        """Give a trial the values of an equal one, as soon as that has some."""
        self._trial(number).set_user_attr(DUPLICATE_OF, original)
        values = self._values.get(original)
        if values is None:
            self._wait_for(original, number)
        else:
            self.tell(number, values, {})

    def write_dashboard(self, directory: Path) -> None:
        """Write the copy that people look at into the sweep's folder; see `for_people`."""
        write_dashboard(directory, self._study, self._space)

    def history(self) -> list[FinishedTrial]:
        """Every told trial, by number."""
        return [
            FinishedTrial(
                proposed=ProposedTrial(t.number, settings_of(t), t.user_attrs.get(PLAN)),
                values=told_values(t),
                duplicate_of=t.user_attrs.get(DUPLICATE_OF),
                attrs=dict(t.user_attrs),
            )
            for t in self._study.get_trials(deepcopy=False)
            if t.state.is_finished() and t.state != TrialState.FAIL
        ]

    def _finish(self, number: int, values: Sequence[float], attrs: Mapping[str, Any]) -> None:
        trial = self._trial(number)
        for key, value in attrs.items():
            trial.set_user_attr(key, value)
        if attrs.get("outcome") == "stopped" and not attrs.get("episodes"):
            trial.set_constraint(RULED_OUT, 1.0)
        if OUTSIDE in trial.user_attrs or DUPLICATE_OF in trial.user_attrs:
            trial.set_user_attr(VALUES, list(values))
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, list(values))
        self._values[number] = tuple(values)
        name = trial.user_attrs.get(PLAN)
        if name == REFERENCE and self._study.metric_names:  # for people: no plot of Optuna's has it
            self.remember(REFERENCE, dict(zip(self._study.metric_names, values, strict=True)))

    def _tell_duplicates(self, original: int) -> None:
        for duplicate in self._duplicates.pop(original, []):
            self.tell(duplicate, self._values[original], {})

    def _ask_plan(self, name: str) -> ProposedTrial:
        self._plans.add(name)
        point = self._space.point_of(name)
        if point is not None:
            self._study.enqueue_trial(point, user_attrs={PLAN: name})
            return self._ask_sampler()
        params = dict(self._space.plans[name])
        attrs = {PLAN: name, OUTSIDE: params}
        self._study.add_trial(optuna.create_trial(state=TrialState.RUNNING, user_attrs=attrs))
        number = self._study.get_trials(deepcopy=False)[-1].number
        return ProposedTrial(number, params, name)

    def _ask_sampler(self) -> ProposedTrial:
        trial = self._study.ask()
        self._trials[trial.number] = trial
        params = self._space.draw(partial(_suggest, trial))
        return ProposedTrial(trial.number, params, trial.user_attrs.get(PLAN))

    def _resume(self, frozen: FrozenTrial) -> ProposedTrial:
        """A trial of an earlier controller; settings that were not drawn yet are drawn now."""
        name = frozen.user_attrs.get(PLAN)
        if OUTSIDE in frozen.user_attrs:
            return ProposedTrial(frozen.number, frozen.user_attrs[OUTSIDE], name)
        params = self._space.draw(partial(_suggest, self._trial(frozen.number)))
        return ProposedTrial(frozen.number, params, name)

    def _trial(self, number: int) -> optuna.Trial:
        if number not in self._trials:
            frozen = self._study.get_trials(deepcopy=False)[number]
            self._trials[number] = optuna.Trial(self._study, frozen._trial_id)
        return self._trials[number]

    def _wait_for(self, original: int, duplicate: int) -> None:
        self._duplicates.setdefault(original, []).append(duplicate)


def open_study(
    config: SweepConfig,
    space: Space,
    views: Sequence[TrialView] = (),
    say: Callable[[str], None] = log.warning,
) -> OptunaStudy:
    """Start the sweep's study, or resume it; written anew where it does not fit the trials.

    Args:
        config: Of the sweep.
        space: Of the sweep.
        views: The trials of its folder.
        say: Takes a line for people where the study is written anew.

    Raises:
        ConfigError: The storage cannot be reached, it holds another sweep under this name, the
            space has changed since, or the sampler cannot search it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if config.sampler.name == "grid" and space.size() is None:
        raise ConfigError(
            f"sampler=grid needs a space of at most {GRID_LIMIT} points, no intervals of floats"
        )
    parts = identity(config, space)
    check_folder(config.directory, parts)
    study = _load_or_create(config, space, views, parts, say)
    study.sampler = make_sampler(config.sampler, config.seed)
    trials = study.get_trials(deepcopy=False)
    grid = _grid(space, config.seed, trials) if config.sampler.name == "grid" else None
    return OptunaStudy(study, space, grid)


def _load_or_create(
    config: SweepConfig,
    space: Space,
    views: Sequence[TrialView],
    parts: Mapping[str, Any],
    say: Callable[[str], None],
) -> optuna.Study:
    names = [objective.name for objective in config.objectives]
    storage = open_storage(config.directory, config.storage_url, say)
    finish_rebuilding(storage, config.name)
    with suppress(KeyError):  # create_study(load_if_exists=True) would write to a finished journal
        study = optuna.load_study(study_name=config.name, storage=storage)
        check_study(study, config, parts)
        if not differs(study, views):
            name_metrics(study, names)
            return study
        say("damaged: the study does not fit the trials' files, and is written anew from them")
        optuna.delete_study(study_name=config.name, storage=storage)
    directions = [StudyDirection[o.direction.upper()] for o in config.objectives]
    study = optuna.create_study(storage=storage, study_name=config.name, directions=directions)
    check_study(study, config, parts)
    name_metrics(study, names)
    study.add_trials(restored(views, space))
    return study


def _grid(space: Space, seed: int, trials: Sequence[FrozenTrial]) -> Iterator[Params]:
    done = [settings_of(trial) for trial in trials]
    points = list(space.points())
    random.Random(seed).shuffle(points)
    return (point for point in points if point not in done)


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Scalar:
    key, domain = parameter.key, parameter.domain
    if isinstance(domain, Choice):
        choice = trial.suggest_categorical(key, domain.values)
        assert choice is not None
        return choice
    if isinstance(domain, IntRange):
        return trial.suggest_int(key, domain.low, domain.high, step=domain.step, log=domain.log)
    return trial.suggest_float(key, domain.low, domain.high, log=domain.log)
