"""A sweep's trials as the model of `kghv` sees them: counts, costs, prices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from duqsweep.assignment import Assignment
from duqsweep.categories import is_success_rate, named_category
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.content import SLACK
from duqsweep.control.front.measures import EPISODE_TIME_S
from duqsweep.control.kghv.chooser import Prices, Region
from duqsweep.control.kghv.common_episodes import counts_by_block
from duqsweep.control.kghv.encoding import Floats
from duqsweep.control.kghv.known import Known
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.trials.reference import Reference

FLOOR = 0.5  # success rates below this share of the best one count for nothing
LEAST_COST = 1e-9  # what a measure of 0 counts as, because costs are logarithms
# Prices before anything was measured.
EPISODE_S, START_S = 10.0, 60.0


@dataclass(frozen=True)
class OpenTrial:
    """A trial and what of it is on its way."""

    view: TrialView
    until: int  # episode that it has reached or is assigned to
    is_waiting: bool  # has an assignment that is not reached

    @classmethod
    def of(cls, view: TrialView, pending: Sequence[Assignment]) -> OpenTrial:
        """With the assignments that run or wait for a job."""
        played, status = len(view.episodes), view.status
        until = next((a.until_episode for a in pending if a.trial == view.number), None)
        if until is None and (status is None or status.state in ("queued", "running", "stopped")):
            until = status.until_episode if status is not None else played
            return cls(view, max(until, played), is_waiting=True)
        return cls(view, max(until or 0, played), is_waiting=until is not None)


class KnownTrials:
    """Reads what the model needs out of trials."""

    def __init__(self, space: Space, config: SweepConfig) -> None:
        """The trials of the sweep of `config`."""
        self._space, self._config = space, config
        self.costs = [o.measure for o in config.objectives if not is_success_rate(o.name)]
        self._category = next(
            named_category(o.name) for o in config.objectives if is_success_rate(o.name)
        )
        suite = config.base.suite
        self.ledger = suite.total_tasks * suite.search_states  # episodes

    def known(self, trial: OpenTrial, reference: Reference | None) -> Known:
        """What is known of a trial."""
        view = trial.view
        failed = view.outcome == "failed"
        outcomes = self._outcomes(view)
        pruned = view.status is not None and view.status.state == "pruned"
        return Known(
            number=view.number,
            params=self._space.point_of_trial(view.trial),
            successes=0 if failed else sum(success for _, success in outcomes),
            episodes=len(outcomes),
            costs=self._measured(view, reference),
            pending=trial.until - len(view.episodes) if trial.is_waiting else 0,
            has_failed=failed,
            is_done=failed or pruned or trial.is_waiting or trial.until >= self.ledger,
            blocks=counts_by_block(outcomes),
        )

    def _outcomes(self, view: TrialView) -> list[tuple[int, bool]]:
        """Places in the ledger and success of the episodes that count."""
        suite = view.trial.spec.suite
        return [
            (e.i, e.success)
            for e in view.episodes
            if e.error is None and self._category in (None, suite.category(e.task))
        ]

    def _measured(self, view: TrialView, reference: Reference | None) -> tuple[float, ...] | None:
        """The costs of a trial, see `Region`; None before it was benchmarked."""
        costs = []
        for measure in self.costs:
            value = measure.read(view, reference)
            if value is None:
                return None
            sign = 1 if measure.direction == "minimize" else -1
            costs.append(sign * math.log(max(value, LEAST_COST)))
        return tuple(costs)

    def region(self, known: Sequence[Known], reference: Reference | None) -> Region | None:
        """The corner is that of front.json's hypervolume; None before a trial was benchmarked."""
        measured = [trial.costs for trial in known if trial.costs is not None]
        if not measured:
            return None
        corner = []
        for k, measure in enumerate(self.costs):
            worst = max(costs[k] for costs in measured)
            if measure.at_reference is not None and reference is not None:
                calls = self._config.base.suite.nominal_calls
                worst = math.log(measure.at_reference(reference.call_ms, calls))
            corner.append(worst + math.log(SLACK))
        rates = [t.successes / t.episodes for t in known if t.episodes >= self._config.batch]
        floor = self._config.sampler.least_success or FLOOR * max(rates, default=0.0)
        return Region(tuple(corner), floor)

    def prices(self, views: Sequence[TrialView]) -> Prices:
        """From what episodes and starts of this sweep have taken so far."""
        episodes = [e for view in views for e in view.episodes if e.error is None]
        starts = [
            (view.measured_ms - view.started_ms) / 1000
            for view in views
            if view.measured_ms is not None
        ]
        # To 10 s, so that the load of the machine hardly changes a decision.
        start_s = max(10.0, round(median(starts), -1)) if starts else START_S
        names = [measure.name for measure in self.costs]
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
