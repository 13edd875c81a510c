"""Sampler `kghv`: shares a sweep's episodes out among its trials, a few at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from duqsweep.assignment import Assignment
from duqsweep.categories import is_success_rate, named_category
from duqsweep.control.config.parameters import Params
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.config.until import TIMES
from duqsweep.control.front.beliefs import Answer, Belief, Beliefs, write_beliefs
from duqsweep.control.front.content import SLACK
from duqsweep.control.front.measures import EPISODE_TIME_S
from duqsweep.control.kghv.chooser import CRASH_EPISODES, Choice, Chooser, Known, Prices, Region
from duqsweep.control.kghv.encoding import Floats
from duqsweep.control.kghv.posterior import Posterior
from duqsweep.control.kghv.question import Able, answer_fastest, answer_front, choose_for_fastest
from duqsweep.control.protocols import EarlyStopping
from duqsweep.control.study.proposed import ProposedTrials, Study, counts
from duqsweep.control.trial_status import FINAL
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import Reference, sweep_reference
from duqsweep.result import SuccessCounts
from duqsweep.spec import Trial

MEMORY = "kghv"  # attribute of the study
LEAST_BATCHES = 2  # that a point of the front gets before anything else
FLOOR = 0.5  # success rates below this share of the best one count for nothing
LEAST_COST = 1e-6  # what a measure of 0 counts as, because costs are logarithms
# Prices before anything was measured.
EPISODE_S, START_S = 10.0, 60.0


@dataclass(frozen=True)
class _Open:
    """A trial and what of it is on its way."""

    view: TrialView
    until: int  # episode that it has reached or is assigned to
    is_waiting: bool  # has an assignment that is not reached


class KghvSearch:
    """Spends `trials × episodes_per_trial` episodes where they gain the most hypervolume.

    After the plans and a few random points, each decision gives one batch of episodes to a known
    trial or to a new one (`kghv.chooser.Chooser`). Nothing is ended early: a trial is paused and
    may be resumed, until it has played the whole ledger. The study is told of the paused ones when
    the budget is spent; until then it has their counts as attributes.

    A decision follows from the trials' files, the pending assignments and the hyperparameters,
    which are kept in the study; so a controller that is killed and started again decides the same.
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
        self._costs = [o.measure for o in config.objectives if not is_success_rate(o.name)]
        self._category = next(
            named_category(o.name) for o in config.objectives if is_success_rate(o.name)
        )
        suite, budget = config.base.suite, config.budget
        self._ledger = suite.total_tasks * suite.search_states
        self._total = budget.trials * budget.episodes_per_trial
        self._batch = config.batch
        self._most_trials = config.most_trials
        self._chooser = Chooser(
            space.parameters,
            space.draw,
            costs=len(self._costs),
            batch=self._batch,
            least=LEAST_BATCHES * self._batch,
        )
        saved = study.recall(MEMORY)
        if saved is not None:
            self._chooser.hyperparameters = saved
        self._told = set(study.told())
        self._answer: Answer | None = None  # to `budget.until`; None where nothing can be said
        self._has_believed = False  # since this controller started
        self._unfinished = self._left_unfinished()

    def next(self, pending: Sequence[Assignment]) -> Assignment | None:
        """See `protocols.Search`."""
        numbers = {assignment.trial for assignment in pending}
        while self._unfinished:
            left_over = self._unfinished.pop(0)
            if left_over.trial not in numbers and not self._is_reached(left_over):
                return left_over
        trials = [_open(view, pending) for view in self._reader.read()]
        left = self._total - sum(trial.until for trial in trials)
        assignment = self._decide(trials, left) if left > 0 and not self._is_answered() else None
        if assignment is None and not pending:
            self._tell_paused()
        return assignment

    def observed(self, view: TrialView) -> None:
        """See `protocols.Search`: the study is given the counts of a paused trial."""
        if view.status is not None and view.status.state == "paused":
            self._study.note(view.number, counts(view))
            self._believe()

    def is_final(self, view: TrialView) -> bool:
        """See `protocols.Search`."""
        return len(view.episodes) >= self._ledger

    def ended(self, view: TrialView) -> None:
        """See `protocols.Search`: tells the study."""
        self._tell(view)
        self._believe()

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
                found.append(Assignment(trial.number, self._batch))
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

    def _decide(self, trials: Sequence[_Open], left: int) -> Assignment | None:
        episodes = min(self._batch, left)
        state = f"{self._config.seed}/{len(trials)}/{sum(trial.until for trial in trials)}"
        rng = random.Random(f"kghv/{state}")
        while self._study.has_plans():
            trial = self._ask(None)
            if trial is not None:
                return Assignment(trial.number, episodes)
        reference = sweep_reference(self._config.directory)
        known = [self._known(trial, reference) for trial in trials]
        may_start = len(self._trials) < self._most_trials
        if may_start and self._is_start(known):
            point = self._trials.new_point(rng)
            trial = None if point is None else self._ask(point)
            if trial is not None:
                return Assignment(trial.number, episodes)
        if all(trial.costs is None for trial in known):
            return None
        prices = self._prices([trial.view for trial in trials])
        choice = self._for_question(known, prices, rng)
        if choice is None:
            choice = self._chooser.choose(
                known,
                self._region(known, reference),
                prices,
                self._is_taken,
                rng,
                may_start,
            )
        self._study.remember(MEMORY, self._chooser.hyperparameters)
        if choice is None:
            return None
        if choice.params is not None:
            trial = self._ask(choice.params)
            return None if trial is None else Assignment(trial.number, episodes)
        number = choice.number
        assert number is not None
        if number in self._told:
            self._reopen()
        played = next(trial.until for trial in trials if trial.view.number == number)
        return Assignment(number, min(played + episodes, self._ledger))

    def _is_taken(self, point: Params) -> bool:
        """Whether a point cannot be evaluated, or is a trial already."""
        return not self._trials.is_new(point)

    def _is_taken_or_too_much(self, point: Params) -> bool:
        """The same, or no new trial may be started."""
        return len(self._trials) >= self._most_trials or self._is_taken(point)

    def _for_question(
        self, known: Sequence[Known], prices: Prices, rng: random.Random
    ) -> Choice | None:
        """Every second decision serves the question of the fastest trial, where it was asked.

        The others serve the front as a whole, among which the answer lies.
        """
        until = self._config.budget.until
        if until is None or until.least_success is None or not self._space.parameters:
            return None
        if sum(trial.episodes + trial.pending for trial in known) // self._batch % 2:
            return None
        posterior = self._chooser.posterior(known)
        return choose_for_fastest(
            until,
            posterior,
            known,
            self._chooser.new_points(known, rng),
            self._time,
            prices,
            self._batch,
            self._is_taken_or_too_much,
        )

    @property
    def _time(self) -> int:
        """The place of the time among the costs."""
        return next(k for k, measure in enumerate(self._costs) if measure.name in TIMES)

    def _believe(self) -> None:
        """Write what the model believes now, for the front."""
        self._has_believed = True
        reference = sweep_reference(self._config.directory)
        known = [self._known(_open(view, ()), reference) for view in self._reader.read()]
        posterior = self._chooser.posterior(known)
        self._study.remember(MEMORY, self._chooser.hyperparameters)
        able = Able.of(known, len(self._costs))
        noise = np.array([measure.noise for measure in self._costs])
        chances = posterior.front_chances(able.places, able.costs, noise).tolist()
        on_front = {int(i): round(p, 4) for i, p in zip(able.places, chances, strict=True)}
        self._answer = self._answered(known, posterior, able, reference)
        pairs = zip(posterior.means.tolist(), posterior.sds.tolist(), strict=True)
        believed = [
            Belief(round(mean, 4), round(sd, 4), on_front.get(i))
            for i, (mean, sd) in enumerate(pairs)
        ]
        trials = {
            str(trial.number): belief
            for trial, belief in zip(known, believed, strict=True)
            if trial.episodes
        }
        write_beliefs(self._config.directory, Beliefs(trials, self._answer))

    def _is_answered(self) -> bool:
        """Whether the question of `budget.until` has its answer."""
        if self._config.budget.until is None:
            return False
        if not self._has_believed and self._reader.known():
            self._believe()
        return self._answer is not None and self._answer.is_known

    def _answered(
        self,
        known: Sequence[Known],
        posterior: Posterior,
        able: Able,
        reference: Reference | None,
    ) -> Answer | None:
        """What is known of the question of `budget.until`; None where nothing can be said yet."""
        until = self._config.budget.until
        if until is None or not len(able.places) or not self._space.parameters:
            return None
        if self._study.has_plans() or self._is_start(known):
            return None
        rng = random.Random(f"until/{self._config.seed}/{sum(trial.episodes for trial in known)}")
        new = self._chooser.new_points(known, rng)
        if until.least_success is not None:
            return answer_fastest(
                until, posterior, able, known, new, self._time, self._is_taken_or_too_much
            )
        region = self._region(known, reference)
        return answer_front(until, posterior, able, new, region, self._is_taken_or_too_much)

    def _is_start(self, known: Sequence[Known]) -> bool:
        """Whether the next trial is a random point."""
        if not self._space.parameters:
            return False
        drawn = sum(trial.params is not None for trial in known)
        measured = any(trial.costs is not None for trial in known)
        return drawn < self._config.sampler.startup_trials or not measured

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

    def _known(self, trial: _Open, reference: Reference | None) -> Known:
        view = trial.view
        failed = view.outcome == "failed"
        seen = self._counts(view)
        pruned = view.status is not None and view.status.state == "pruned"
        return Known(
            number=view.number,
            params=self._space.point_of_trial(view.trial),
            successes=0 if failed else seen.successes,
            episodes=CRASH_EPISODES if failed else seen.ran,
            costs=self._measured(view, reference),
            pending=trial.until - len(view.episodes) if trial.is_waiting else 0,
            is_done=failed or pruned or trial.is_waiting or trial.until >= self._ledger,
        )

    def _counts(self, view: TrialView) -> SuccessCounts:
        return view.counts if self._category is None else view.categories[self._category]

    def _measured(self, view: TrialView, reference: Reference | None) -> tuple[float, ...] | None:
        """The costs of a trial, see `Region`; None before it was benchmarked."""
        costs = []
        for measure in self._costs:
            value = measure.read(view, reference)
            if value is None:
                return None
            sign = 1 if measure.direction == "minimize" else -1
            costs.append(sign * math.log(max(value, LEAST_COST)))
        return tuple(costs)

    def _region(self, known: Sequence[Known], reference: Reference | None) -> Region:
        """The corner is that of front.json's hypervolume."""
        measured = [trial.costs for trial in known if trial.costs is not None]
        corner = []
        for k, measure in enumerate(self._costs):
            worst = max(costs[k] for costs in measured)
            if measure.at_reference is not None and reference is not None:
                calls = self._config.base.suite.nominal_calls
                worst = math.log(measure.at_reference(reference.call_ms, calls))
            corner.append(worst + math.log(SLACK))
        rates = [t.successes / t.episodes for t in known if t.episodes >= self._batch]
        floor = self._config.sampler.least_success or FLOOR * max(rates, default=0.0)
        return Region(tuple(corner), floor)

    def _prices(self, views: Sequence[TrialView]) -> Prices:
        """From what episodes and starts of this sweep have taken so far."""
        episodes = [e for view in views for e in view.episodes if e.error is None]
        starts = [
            (view.measured_ms - view.started_ms) / 1000
            for view in views
            if view.measured_ms is not None
        ]
        # To 10 s, so that the load of the machine hardly changes a decision.
        start_s = max(10.0, round(median(starts), -1)) if starts else START_S
        names = [measure.name for measure in self._costs]
        if EPISODE_TIME_S.name not in names:
            mean_s = sum(e.wall_s for e in episodes) / len(episodes) if episodes else EPISODE_S
            return Prices(lambda costs: np.full(len(costs), mean_s), start_s)
        simulator_s = EPISODE_S
        if episodes:
            simulator_s = sum(e.wall_s - e.policy_s for e in episodes) / len(episodes)
        place = names.index(EPISODE_TIME_S.name)

        def episode_s(costs: Floats) -> Floats:
            return np.exp(costs[:, place]) + max(simulator_s, 0.0)

        return Prices(episode_s, start_s)


def _open(view: TrialView, pending: Sequence[Assignment]) -> _Open:
    played, status = len(view.episodes), view.status
    until = next((a.until_episode for a in pending if a.trial == view.number), None)
    if until is None and (status is None or status.state in ("queued", "running", "stopped")):
        until = status.until_episode if status is not None else played
        return _Open(view, max(until, played), is_waiting=True)
    return _Open(view, max(until or 0, played), is_waiting=until is not None)
