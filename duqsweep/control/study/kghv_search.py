"""Sampler `kghv`: shares a sweep's episodes out among its trials, a few at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from duqsweep.assignment import Assignment
from duqsweep.background import in_background
from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.config.until import TIMES, Until
from duqsweep.control.front.beliefs import Answer, Beliefs, write_beliefs
from duqsweep.control.kghv.chooser import Choice, Chooser
from duqsweep.control.kghv.decider import Decider, Questioned, Situation
from duqsweep.control.protocols import EarlyStopping
from duqsweep.control.study.modelled_costs import ModelledCosts
from duqsweep.control.study.proposed import ProposedTrials, Study, counts
from duqsweep.control.study.situation import KnownTrials, OpenTrial
from duqsweep.control.trial_status import FINAL
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import sweep_reference
from duqsweep.spec import Trial

MEMORY = "kghv"  # attribute of the study
GRACE_S = 0.05  # that the loop waits for the model: small sweeps need no more


@dataclass(frozen=True)
class _Decision:
    """A choice, and what it was made from."""

    choice: Choice | None
    trials: Sequence[OpenTrial]
    episodes: int  # of one assignment
    hyperparameters: list[list[float]]
    state: tuple[Any, ...]  # of the sweep


class KghvSearch:
    """Spends `trials × episodes_per_trial` episodes where they gain the most hypervolume.

    After the plans and a few random points, each decision gives one batch of episodes to a known
    trial or to a new one (`kghv.decider.Decider`). Nothing is ended early: a trial is paused and
    may be resumed, until it has played the whole ledger. The study is told of the paused ones when
    the budget is spent; until then it has their counts as attributes.

    The model computes in a thread of its own, one thing at a time, on a picture of the sweep that
    was taken when it began. It writes nothing: what it finds is taken in by `next` and `poll`. So a
    decision follows from the trials' files and the pending assignments at that moment and from the
    hyperparameters, which are kept in the study; a controller that is killed meanwhile and started
    again decides the same.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        config: SweepConfig,
        stopping: EarlyStopping,
        reader: TrialReader,
    ) -> None:
        """Reads what earlier controllers left; see `FixedBudgetSearch` for the arguments."""
        self._study, self._space, self._config, self._reader = study, space, config, reader
        self._trials = ProposedTrials(study, space, config, stopping, reader)
        self._known = KnownTrials(space, config)
        budget = config.budget
        self._total = budget.trials * budget.episodes_per_trial
        self._until = budget.until if space.parameters else None
        self._decider = _decider(config, space, self._known, self._until)
        self._remembered = study.recall(MEMORY)
        if self._remembered is not None:
            self._decider.hyperparameters = self._remembered
        self._told = set(study.told())
        self._answer: Answer | None = None  # to `budget.until`; None where nothing can be said
        self._job: Future[_Decision | Beliefs] | None = None  # what the model computes
        self._decision: _Decision | None = None  # not given out yet
        self._idle: tuple[Any, ...] | None = None  # the state in which nothing was left to evaluate
        # Trials have changed since the model last said what it believes.
        self._is_stale = self._until is not None and bool(reader.known())
        self._has_news = False  # for `poll`: what the model believes was written since it was asked
        self._unfinished = self._left_unfinished()

    def next(self, pending: Sequence[Assignment]) -> Assignment | None:
        """See `protocols.Search`."""
        numbers = {assignment.trial for assignment in pending}
        while self._unfinished:
            left_over = self._unfinished.pop(0)
            if left_over.trial not in numbers and not self._is_reached(left_over):
                return left_over
        self._take_in(GRACE_S)
        if self._until is not None and self._is_stale:  # first whether that ends the sweep
            self._start_believing()
            self._take_in(GRACE_S)
        if self._job is not None:
            return None
        assignment = self._decided() if self._decision is not None else self._decide(pending)
        if assignment is None and not pending and not self.is_busy:
            self._tell_paused()
        return assignment

    @property
    def is_busy(self) -> bool:
        """See `protocols.Search`."""
        return self._job is not None or self._decision is not None or self._is_stale

    def poll(self, wait_s: float = 0.0) -> bool:
        """See `protocols.Search`: what the model believes goes to posterior.json."""
        self._take_in(wait_s)
        if self._is_stale and self._job is None:
            self._start_believing()
            self._take_in(max(wait_s, GRACE_S))
        has_news, self._has_news = self._has_news, False
        return has_news

    def observed(self, view: TrialView) -> None:
        """See `protocols.Search`: the study is given the counts of a paused trial."""
        if view.status is not None and view.status.state == "paused":
            self._study.note(view.number, counts(view))
            self._is_stale = True

    def is_final(self, view: TrialView) -> bool:
        """See `protocols.Search`."""
        return len(view.episodes) >= self._known.ledger

    def ended(self, view: TrialView) -> None:
        """See `protocols.Search`: tells the study."""
        self._tell(view)
        self._is_stale = True

    def _tell(self, view: TrialView) -> None:
        self._trials.ended(view)
        self._told.add(view.number)

    def _left_unfinished(self) -> list[Assignment]:
        """Assignments that no earlier controller saw reached."""
        found = []
        for proposed in self._study.running():
            trial = self._trials.take(proposed)
            if trial is None:
                continue
            self._trials.write_spec(trial)
            view = self._reader.view(trial.number)
            if view.status is None:
                found.append(Assignment(trial.number, self._config.batch))
            elif view.status.state in ("queued", "running", "stopped"):
                found.append(Assignment(trial.number, view.status.until_episode))
            elif view.status.state in FINAL:
                self._tell(view)
        return found

    def _is_reached(self, assignment: Assignment) -> bool:
        """Whether a job that was re-attached has reached an assignment since."""
        result = self._reader.view(assignment.trial).result
        if result is None or result.outcome != "complete":
            return False
        return result.episodes >= assignment.until_episode

    def _tell_paused(self) -> None:
        """Nothing is left to decide: the study gets the values of all trials."""
        for view in self._reader.read():
            paused = view.status is not None and view.status.state == "paused"
            if paused and view.number not in self._told:
                self._tell(view)

    def _decide(self, pending: Sequence[Assignment]) -> Assignment | None:
        """The next assignment; None where the model has yet to say it, or nothing is left."""
        trials = [OpenTrial.of(view, pending) for view in self._reader.read()]
        left = self._total - sum(trial.until for trial in trials)
        if left <= 0 or (self._answer is not None and self._answer.is_known):
            return None
        episodes = min(self._config.batch, left)
        while self._study.has_plans():
            trial = self._ask(None)
            if trial is not None:
                return Assignment(trial.number, episodes)
        situation = self._situation(trials)
        if situation.may_start and situation.is_start:
            point = self._trials.new_point(random.Random(f"kghv/{situation.seed}"))
            trial = None if point is None else self._ask(point)
            if trial is not None:
                return Assignment(trial.number, episodes)
        state = (situation.known, len(pending))
        if situation.region is None or state == self._idle:
            return None

        def decide() -> _Decision | Beliefs:
            choice = self._decider.decide(situation)
            return _Decision(choice, trials, episodes, self._decider.hyperparameters, state)

        self._job = in_background(decide)
        self._take_in(GRACE_S)
        return None if self._decision is None else self._decided()

    def _decided(self) -> Assignment | None:
        """The assignment that follows from a decision of the model."""
        decision, self._decision = self._decision, None
        assert decision is not None
        if decision.hyperparameters != self._remembered:
            self._study.remember(MEMORY, decision.hyperparameters)
            self._remembered = decision.hyperparameters
        choice = decision.choice
        if choice is None:
            self._idle = decision.state
            return None
        if choice.params is not None:
            trial = self._ask(choice.params)
            return None if trial is None else Assignment(trial.number, decision.episodes)
        number = choice.number
        assert number is not None
        if number in self._told:
            self._reopen()
        played = next(trial.until for trial in decision.trials if trial.view.number == number)
        return Assignment(number, min(played + decision.episodes, self._known.ledger))

    def _situation(self, trials: Sequence[OpenTrial]) -> Situation:
        """The sweep as it is now."""
        reference = sweep_reference(self._config.directory)
        known = tuple(self._known.known(trial, reference) for trial in trials)
        is_measured = any(trial.costs is not None for trial in known)
        drawn = sum(trial.params is not None for trial in known)
        lacks_points = drawn < self._config.sampler.startup_trials or not is_measured
        return Situation(
            known=known,
            region=self._known.region(known, reference),
            prices=self._known.prices([trial.view for trial in trials]),
            taken=self._trials.taken(),
            may_start=len(self._trials) < self._config.most_trials,
            is_start=self._study.has_plans() or bool(self._space.parameters and lacks_points),
            seed=f"{self._config.seed}/{len(trials)}/{sum(trial.until for trial in trials)}",
        )

    def _start_believing(self) -> None:
        """Have the model say what it believes of the trials as they are now."""
        if self._job is not None:
            return
        self._is_stale = False
        situation = self._situation([OpenTrial.of(view, ()) for view in self._reader.read()])

        def believe() -> _Decision | Beliefs:
            return self._decider.believe(situation)

        self._job = in_background(believe)

    def _take_in(self, wait_s: float) -> None:
        """Take what the model has found, if it is ready.

        What went wrong in its thread is raised here.
        """
        if self._job is None or not wait([self._job], wait_s).done:
            return
        found = self._job.result()
        self._job = None
        if isinstance(found, _Decision):
            self._decision = found
            return
        self._answer = found.answer
        write_beliefs(self._config.directory, found)
        self._has_news = True

    def _ask(self, point: Params | None) -> Trial | None:
        proposed = self._study.ask(point)
        trial = None if proposed is None else self._trials.take(proposed)
        if trial is not None:
            self._trials.write_spec(trial)
        return trial

    def _reopen(self) -> None:
        """Take back what the study was told of trials that may get more episodes."""
        paused = {
            view.number
            for view in self._reader.read()
            if view.result is not None and view.result.outcome == "complete"
        }
        self._study.reopen(sorted(paused & self._told))
        self._told -= paused


def _decider(config: SweepConfig, space: Space, known: KnownTrials, until: Until | None) -> Decider:
    noise = tuple(measure.noise for measure in known.costs)
    chooser = Chooser(
        space.parameters,
        space.draw,
        costs=noise,
        batch=config.batch,
        modelled=ModelledCosts(space, known.costs),
    )
    time = next((k for k, measure in enumerate(known.costs) if measure.name in TIMES), 0)
    return Decider(chooser, Questioned(until, time, noise, config.batch))
