"""A study's trials as trials of the sweep: equal ones are one, and each has a spec.json."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from duqsweep import files
from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import ProposedTrial, Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.objectives import objective_values
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.protocols import EarlyStopping
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import sweep_reference
from duqsweep.errors import ConfigError
from duqsweep.spec import Trial

log = logging.getLogger(__name__)

DRAWS = 300  # random points to look for a new one before the space counts as exhausted


class Study(Protocol):
    """Proposes points and remembers the values of their trials."""

    def ask(self, point: Params | None = None) -> ProposedTrial | None:
        """A new trial; None when there is nothing left to ask for."""

    def has_plans(self) -> bool:
        """Whether `ask` gives a plan, or a trial that an earlier controller enqueued."""

    def running(self) -> list[ProposedTrial]:
        """Trials that were proposed and not told, duplicates left out."""

    def told(self) -> list[int]:
        """Numbers of the trials that were told, duplicates left out."""

    def reopen(self, numbers: Collection[int]) -> None:
        """Forget the values of these trials and of their duplicates: they run again."""

    def note(self, number: int, attrs: Mapping[str, Any]) -> None:
        """Keep something of a trial that is not told yet."""

    def tell(self, number: int, values: Sequence[float], attrs: Mapping[str, Any]) -> None:
        """Finish a trial."""

    def refuse(self, number: int, reason: str) -> None:
        """Finish a trial that cannot be evaluated; it has no values."""

    def duplicate(self, number: int, original: int) -> None:
        """Give a trial the values of an equal one, as soon as that has some."""

    def remember(self, key: str, value: Any) -> None:
        """Keep plain JSON data of the search, for the next controller."""

    def recall(self, key: str) -> Any:
        """What was kept under `key`; None where nothing was."""


class ProposedTrials:
    """Turns what the study proposes into trials, and tells the study what became of them.

    Trials with equal fingerprints are one: only the first is evaluated.
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
        self._pending_tells: dict[int, TrialView] = {}  # no reference or worst value known yet

    def __len__(self) -> int:
        """How many different trials there are."""
        return len(self._numbers)

    def take(self, proposed: ProposedTrial) -> Trial | None:
        """The trial; None for one that equals another or cannot exist, which the study records."""
        try:
            trial = self._space.trial(proposed.number, proposed.params, proposed.name)
        except ConfigError as error:
            log.warning("trial %d is impossible: %s", proposed.number, error)
            self._study.refuse(proposed.number, str(error))
            return None
        known = self._numbers.setdefault(trial.fingerprint, trial.number)
        if known != trial.number:
            self._study.duplicate(trial.number, known)
            return None
        return trial

    def is_new(self, point: Params) -> bool:
        """Whether a point can be evaluated and equals no trial."""
        return not self._is_taken(point, self._numbers)

    def taken(self) -> Callable[[Params], bool]:
        """Whether a point cannot be evaluated, or equals one of the trials that there are now."""
        return partial(self._is_taken, known=frozenset(self._numbers))

    def _is_taken(self, point: Params, known: Collection[str]) -> bool:
        try:
            return self._space.trial(-1, point).fingerprint in known
        except ConfigError:
            return True

    def new_point(self, rng: random.Random) -> Params | None:
        """A random point that can be evaluated and equals no trial; None where none is found."""
        points = (self._space.random_point(rng) for _ in range(DRAWS))
        return next(filter(self.is_new, points), None)

    def write_spec(self, trial: Trial) -> None:
        """Write the trial's spec.json unless it is there."""
        path = self.spec_path(trial.number)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            spec = replace(trial, min_speedup=self._stopping.min_speedup(trial)).to_json()
            files.write_json(path, spec)

    def spec_path(self, number: int) -> Path:
        """Where a trial's spec.json is or will be."""
        return files.trial_dir(self._config.directory, number) / files.SPEC_JSON

    def ended(self, view: TrialView) -> None:
        """Tell the study, also of trials that had nothing to compare with so far."""
        self._pending_tells[view.number] = view
        for waiting in list(self._pending_tells.values()):
            if self._tell(waiting, newest=view):
                del self._pending_tells[waiting.number]

    def _tell(self, view: TrialView, newest: TrialView) -> bool:
        """Tell the study a trial's values; False while they are not known."""
        objectives = self._config.objectives
        reference = sweep_reference(self._config.directory)
        values = objective_values(view, objectives, reference)
        if values is None:
            others = [*self._reader.known(), newest]
            values = objective_values(view, objectives, reference, others)
        if values is None:
            return False
        result = view.result
        assert result is not None
        attrs = {
            "outcome": result.outcome,
            "reason": result.reason,
            "fingerprint": view.trial.fingerprint,
            **counts(view),
        }
        self._study.tell(view.number, values, attrs)
        return True


def counts(view: TrialView) -> dict[str, Any]:
    """A trial's episodes as attributes of its Optuna trial, with the interval of their rate."""
    estimate = SuccessEstimate.of(view.counts)
    return {
        "episodes": view.counts.episodes,
        "successes": view.counts.successes,
        "errors": view.counts.errors,
        "success_low": estimate.success_low,
        "success_high": estimate.success_high,
    }
