"""What to evaluate next: each trial that an Optuna sampler proposes, to a fixed budget."""

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
from duqsweep.control.config.space import ProposedTrial, Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.objectives import objective_values
from duqsweep.control.protocols import EarlyStopping
from duqsweep.control.trial_status import FINAL
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import sweep_reference
from duqsweep.errors import ConfigError
from duqsweep.spec import Trial

log = logging.getLogger(__name__)

REPEATS = 8  # in a row that a sampler may propose before a random new point is taken
DRAWS = 300  # random points to look for a new one before the space counts as exhausted


class Study(Protocol):
    """Proposes points and remembers the values of their trials."""

    def ask(self, point: Params | None = None) -> ProposedTrial | None:
        """A new trial; None when there is nothing left to ask for."""

    def running(self) -> list[ProposedTrial]:
        """Trials that were proposed and not told, duplicates left out."""

    def told(self) -> list[int]:
        """Numbers of the trials that were told, duplicates left out."""

    def reopen(self, numbers: Collection[int]) -> None:
        """Forget the values of these trials and of their duplicates: they run again."""

    def tell(self, number: int, values: Sequence[float], attrs: Mapping[str, Any]) -> None:
        """Finish a trial."""

    def refuse(self, number: int, reason: str) -> None:
        """Finish a trial that cannot be evaluated; it has no values."""

    def duplicate(self, number: int, original: int) -> None:
        """Give a trial the values of an equal one, as soon as that has some."""


class FixedBudgetSearch:
    """Every trial gets `budget.episodes_per_trial` episodes, then the study is told.

    Trials with equal fingerprints are one: only the first is evaluated, and only it counts against
    the budget. Of a pruned trial the study is told what is known of it.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        config: SweepConfig,
        stopping: EarlyStopping,
        reader: TrialReader,
    ) -> None:
        """Reads what earlier controllers left in the sweep's folder.

        Args:
            study: Proposes points.
            space: Turns points into trials.
            config: Of the sweep.
            stopping: Gives each trial's `min_speedup`; the loop decides with the same one.
            reader: Of the sweep's trials; shared, so that no file is parsed twice.
        """
        self._study = study
        self._space = space
        self._config = config
        self._stopping = stopping
        self._reader = reader
        self._numbers: dict[str, int] = {}  # fingerprint → the trial that is evaluated
        for view in self._reader.read():
            self._numbers.setdefault(view.trial.fingerprint, view.number)
        study.reopen(self._to_reopen(study.told()))
        self._unfinished = study.running()  # of earlier controllers
        self._paused: dict[int, Trial] = {}  # reached an assignment of an earlier, smaller budget
        self._pending_tells: dict[int, TrialView] = {}  # no reference or worst value known yet

    def next(self, pending: Sequence[Assignment]) -> Assignment | None:
        """See `protocols.Search`."""
        numbers = {assignment.trial for assignment in pending}
        while self._unfinished:
            trial = self._resume(self._unfinished.pop(0))
            if trial is not None and trial.number not in numbers:
                return self._assignment(trial)
        if self._paused:
            return self._assignment(self._paused.pop(min(self._paused)))
        trial = self._new_trial()
        return None if trial is None else self._assignment(trial)

    def observed(self, view: TrialView) -> None:
        """See `protocols.Search`."""
        if view.status is not None and view.status.state == "paused":
            self._paused[view.number] = view.trial

    def is_final(self, view: TrialView) -> bool:
        """See `protocols.Search`."""
        return not self._is_unfinished(view)

    def ended(self, view: TrialView) -> None:
        """Tell the study, also of trials that had nothing to compare with so far."""
        self._pending_tells[view.number] = view
        for waiting in list(self._pending_tells.values()):
            if self._tell(waiting):
                del self._pending_tells[waiting.number]

    def _to_reopen(self, told: Sequence[int]) -> list[int]:
        """Told trials that are to be evaluated again, or further than they were."""
        views = {view.number: view for view in self._reader.read()}
        return [n for n in told if n not in views or self._is_unfinished(views[n])]

    def _is_unfinished(self, view: TrialView) -> bool:
        """Whether a trial has no result, or fewer episodes than the budget now gives it."""
        if view.result is None:
            return True
        short = view.result.episodes < self._config.budget.episodes_per_trial
        return view.result.outcome == "complete" and short

    def _resume(self, proposed: ProposedTrial) -> Trial | None:
        """A trial of an earlier controller; None when it needs no more work."""
        trial = self._possible(proposed)
        if trial is None:
            return None
        known = self._numbers.setdefault(trial.fingerprint, trial.number)
        if known != trial.number:
            self._study.duplicate(trial.number, known)
            return None
        if not (self._folder(trial.number) / files.SPEC_JSON).exists():
            return trial
        view = self._reader.view(trial.number)
        is_final = view.status is not None and view.status.state in FINAL
        if self._is_unfinished(view) or not is_final:
            return view.trial
        self.ended(view)
        return None

    def _new_trial(self) -> Trial | None:
        if len(self._numbers) >= self._config.budget.trials:
            return None
        for repeats in range(2 * REPEATS):
            point = None if repeats < REPEATS else self._unseen_point(repeats)
            if repeats >= REPEATS and point is None:
                return None
            proposed = self._study.ask(point)
            if proposed is None:
                return None
            trial = self._possible(proposed)
            if trial is None:
                continue
            known = self._numbers.setdefault(trial.fingerprint, trial.number)
            if known == trial.number:
                return trial
            self._study.duplicate(trial.number, known)
        return None

    def _possible(self, proposed: ProposedTrial) -> Trial | None:
        """The proposed trial; None for one that cannot exist, which the study records as failed."""
        try:
            return self._space.trial(proposed.number, proposed.params, proposed.name)
        except ConfigError as error:
            log.warning("trial %d is impossible: %s", proposed.number, error)
            self._study.refuse(proposed.number, str(error))
            return None

    def _unseen_point(self, repeats: int) -> Params | None:
        if not self._space.parameters:
            return None
        rng = random.Random(f"{self._config.seed}/{len(self._numbers)}/{repeats}")
        for _ in range(DRAWS):
            point = self._space.random_point(rng)
            with suppress(ConfigError):
                if self._space.trial(-1, point).fingerprint not in self._numbers:
                    return point
        return None

    def _assignment(self, trial: Trial) -> Assignment:
        folder = self._folder(trial.number)
        if not (folder / files.SPEC_JSON).exists():
            folder.mkdir(parents=True, exist_ok=True)
            spec = replace(trial, min_speedup=self._stopping.min_speedup(trial)).to_json()
            files.write_json(folder / files.SPEC_JSON, spec)
        return Assignment(trial.number, self._config.budget.episodes_per_trial)

    def _folder(self, number: int) -> Path:
        return files.trial_dir(self._config.directory, number)

    def _tell(self, view: TrialView) -> bool:
        """Tell the study a trial's values; False while they are not known."""
        objectives = self._config.objectives
        reference = sweep_reference(self._config.directory)
        values = objective_values(view, objectives, reference)
        if values is None:
            values = objective_values(view, objectives, reference, self._reader.known())
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
