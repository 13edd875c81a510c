"""What to evaluate next: each trial that an Optuna sampler proposes, to a fixed budget."""

from __future__ import annotations

import random
from collections.abc import Sequence

from duqsweep.assignment import Assignment
from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import ProposedTrial, Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.protocols import EarlyStopping
from duqsweep.control.study.proposed import ProposedTrials, Study
from duqsweep.control.trial_status import FINAL
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.spec import Trial

REPEATS = 8  # in a row that a sampler may propose before a random new point is taken


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
        self._budget = config.budget
        self._reader = reader
        self._trials = ProposedTrials(study, space, config, stopping, reader)
        study.reopen(self._to_reopen(study.told()))
        self._unfinished = study.running()  # of earlier controllers
        self._paused: dict[int, Trial] = {}  # reached an assignment of an earlier, smaller budget
        self._seed = config.seed

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

    @property
    def is_busy(self) -> bool:
        """See `protocols.Search`: everything is decided at once."""
        return False

    def poll(self, wait_s: float = 0.0) -> bool:
        """See `protocols.Search`."""
        return False

    def observed(self, view: TrialView) -> None:
        """See `protocols.Search`."""
        if view.status is not None and view.status.state == "paused":
            self._paused[view.number] = view.trial

    def is_final(self, view: TrialView) -> bool:
        """See `protocols.Search`."""
        return not self._is_unfinished(view)

    def ended(self, view: TrialView) -> None:
        """See `protocols.Search`: tells the study."""
        self._trials.ended(view)

    def _to_reopen(self, told: Sequence[int]) -> list[int]:
        """Told trials that are to be evaluated again, or further than they were."""
        views = {view.number: view for view in self._reader.read()}
        return [n for n in told if n not in views or self._is_unfinished(views[n])]

    def _is_unfinished(self, view: TrialView) -> bool:
        """Whether a trial has no result, or fewer episodes than the budget now gives it."""
        if view.result is None:
            return True
        short = view.result.episodes < self._budget.episodes_per_trial
        return view.result.outcome == "complete" and short

    def _resume(self, proposed: ProposedTrial) -> Trial | None:
        """A trial of an earlier controller; None when it needs no more work."""
        trial = self._trials.take(proposed)
        if trial is None or not self._trials.spec_path(trial.number).exists():
            return trial
        view = self._reader.view(trial.number)
        is_final = view.status is not None and view.status.state in FINAL
        if self._is_unfinished(view) or not is_final:
            return view.trial
        self.ended(view)
        return None

    def _new_trial(self) -> Trial | None:
        if len(self._trials) >= self._budget.trials:
            return None
        for repeats in range(2 * REPEATS):
            point = None if repeats < REPEATS else self._unseen_point(repeats)
            if repeats >= REPEATS and point is None:
                return None
            proposed = self._study.ask(point)
            if proposed is None:
                return None
            trial = self._trials.take(proposed)
            if trial is not None:
                return trial
        return None

    def _unseen_point(self, repeats: int) -> Params | None:
        if not self._space.parameters:
            return None
        rng = random.Random(f"{self._seed}/{len(self._trials)}/{repeats}")
        return self._trials.new_point(rng)

    def _assignment(self, trial: Trial) -> Assignment:
        self._trials.write_spec(trial)
        return Assignment(trial.number, self._budget.episodes_per_trial)
