"""What is worth evaluating next: full evaluation of what an Optuna sampler proposes."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from duqsweep import files
from duqsweep.assignment import Assignment
from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import Asked, Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.objectives import objective_values
from duqsweep.control.study.ruling import MIN_SPEEDUP, Rival, ruled_out
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import sweep_reference
from duqsweep.errors import ConfigError
from duqsweep.spec import Trial

log = logging.getLogger(__name__)

REPEATS = 8  # in a row that a sampler may propose before a random new point is taken
DRAWS = 300  # random points to look for a new one before the space counts as exhausted


class Study(Protocol):
    """Proposes points and remembers what became of them."""

    def ask(self, point: Params | None = None) -> Asked | None:
        """A new trial; None when there is nothing left to ask for."""

    def running(self) -> list[Asked]:
        """Trials that were asked and not told, duplicates left out."""

    def told(self) -> list[int]:
        """Numbers of the trials that were told, duplicates left out."""

    def reopen(self, numbers: Collection[int]) -> None:
        """Forget what these trials and their duplicates were told as: they run again."""

    def tell(self, number: int, values: Sequence[float], attrs: Mapping[str, Any]) -> None:
        """Finish a trial."""

    def refuse(self, number: int, reason: str) -> None:
        """Finish a trial that cannot be evaluated; it has no values."""

    def duplicate(self, number: int, original: int) -> None:
        """Give a trial the values of an equal one, as soon as that has some."""


class FullEvaluation:
    """Every trial walks the ledger to `budget.episodes_per_trial`, then it is told.

    Trials with equal fingerprints are one: only the first is evaluated, and only it counts against
    the budget. A trial whose time alone rules it out is told with what is known of it; plans, which
    the user asked for by name, are always evaluated.
    """

    def __init__(self, study: Study, space: Space, config: SweepConfig) -> None:
        """Reads what earlier lives left in the sweep's folder."""
        self._study = study
        self._space = space
        self._config = config
        self._reader = TrialReader(config.directory)
        self._numbers: dict[str, int] = {}  # fingerprint → the trial that is evaluated
        for view in self._reader.read():
            self._numbers.setdefault(view.trial.fingerprint, view.number)
        study.reopen(self._to_reopen(study.told()))
        self._left_over = study.running()  # of earlier lives
        self._told_later: dict[int, TrialView] = {}  # without a reference or a worst value yet
        self._rng = random.Random(f"{config.seed}/{len(self._numbers)}")

    def next(self, pending: Collection[int]) -> Assignment | None:
        """The next assignment; None while there is nothing to do until something pending ends.

        Trials that an earlier life asked and did not tell come first. The trial's spec.json is
        written.

        Args:
            pending: Numbers of the trials that run now.
        """
        while self._left_over:
            trial = self._take_up(self._left_over.pop(0))
            if trial is not None and trial.number not in pending:
                return self._assignment(trial)
        trial = self._new_trial()
        return None if trial is None else self._assignment(trial)

    def ended(self, view: TrialView) -> None:
        """A trial has a result: tell it, and those that had nothing to compare with so far."""
        self._told_later[view.number] = view
        for waiting in list(self._told_later.values()):
            if self._tell(waiting):
                del self._told_later[waiting.number]

    def ruled_out(self, view: TrialView) -> str | None:
        """Why a trial, just benchmarked, should get no (further) episode; None: it should.

        A plan is never ruled out, nor a trial of a sweep that trades more than success and time.
        """
        if view.vitals is None or not self._may_rule_out(view.trial):
            return None
        rivals = [
            Rival(other.number, self._speed(other), other.counts.successes, other.counts.ran)
            for other in self._reader.read()
            if other.vitals is not None and other.number != view.number and other.result is not None
        ]
        return ruled_out(self._speed(view), view.counts.successes, view.counts.ran, rivals)

    def _speed(self, view: TrialView) -> float:
        """How many times faster than the unquantized policy a nominal episode is."""
        assert view.vitals is not None
        return view.vitals.speedup * self._calls_saved(view.trial)

    def _calls_saved(self, trial: Trial) -> float:
        """Calls of a nominal episode as the sweep's base has it, over those of the trial."""
        calls = trial.spec.protocol.nominal_calls
        return self._config.base.protocol.nominal_calls / calls

    def _may_rule_out(self, trial: Trial) -> bool:
        names = {objective.name for objective in self._config.objectives}
        return trial.name is None and names == {"success_rate", "episode_time_s"}

    def _to_reopen(self, told: Sequence[int]) -> list[int]:
        """Told trials that are to be evaluated again, or further than they were."""
        views = {view.number: view for view in self._reader.read()}
        return [number for number in told if number in views and self._is_unfinished(views[number])]

    def _is_unfinished(self, view: TrialView) -> bool:
        """Whether a trial has no result, or fewer episodes than the budget now gives it."""
        if view.result is None:
            return True
        short = view.result.episodes < self._config.budget.episodes_per_trial
        return view.outcome == "complete" and short

    def _take_up(self, asked: Asked) -> Trial | None:
        """A trial of an earlier life; None when it needs no more work."""
        trial = self._possible(asked)
        if trial is None:
            return None
        known = self._numbers.setdefault(trial.fingerprint, trial.number)
        if known != trial.number:
            self._study.duplicate(trial.number, known)
            return None
        if not (self._folder(trial.number) / files.SPEC_JSON).exists():
            return trial
        view = self._reader.view(trial.number)
        if self._is_unfinished(view) or (view.outcome == "stopped" and not self.ruled_out(view)):
            return view.trial
        self.ended(view)
        return None

    def _new_trial(self) -> Trial | None:
        if len(self._numbers) >= self._config.budget.trials:
            return None
        for repeats in range(2 * REPEATS):
            point = None if repeats < REPEATS else self._unseen_point()
            if repeats >= REPEATS and point is None:
                return None
            asked = self._study.ask(point)
            if asked is None:
                return None
            trial = self._possible(asked)
            if trial is None:
                continue
            known = self._numbers.setdefault(trial.fingerprint, trial.number)
            if known == trial.number:
                return trial
            self._study.duplicate(trial.number, known)
        return None

    def _possible(self, asked: Asked) -> Trial | None:
        """The trial that was asked for; one that cannot exist is told as failed, and None."""
        try:
            return self._space.trial(asked.number, asked.params, asked.name)
        except ConfigError as error:
            log.warning("trial %d is impossible: %s", asked.number, error)
            self._study.refuse(asked.number, str(error))
            return None

    def _unseen_point(self) -> Params | None:
        if not self._space.parameters:
            return None
        for _ in range(DRAWS):
            point = self._space.random_point(self._rng)
            with suppress(ConfigError):
                if self._space.trial(-1, point).fingerprint not in self._numbers:
                    return point
        return None

    def _assignment(self, trial: Trial) -> Assignment:
        folder = self._folder(trial.number)
        if not (folder / files.SPEC_JSON).exists():
            folder.mkdir(parents=True, exist_ok=True)
            floor = MIN_SPEEDUP / self._calls_saved(trial) if self._may_rule_out(trial) else 0.0
            spec = replace(trial, min_speedup=floor).to_json()
            files.write_json(folder / files.SPEC_JSON, spec)
        return Assignment(trial.number, self._config.budget.episodes_per_trial)

    def _folder(self, number: int) -> Path:
        return files.trial_dir(self._config.directory, number)

    def _tell(self, view: TrialView) -> bool:
        """Whether the trial could be told."""
        objectives = self._config.objectives
        reference = sweep_reference(self._config.directory)
        values = objective_values(view, objectives, reference)
        if values is None:
            values = objective_values(view, objectives, reference, self._reader.read())
        if values is None:
            return False
        result = view.result
        assert result is not None
        attrs = {
            "outcome": result.outcome,
            "reason": result.reason,
            "fingerprint": view.trial.fingerprint,
            "episodes": result.episodes,
            "successes": result.successes,
            "errors": result.errors,
        }
        self._study.tell(view.number, values, attrs)
        return True
