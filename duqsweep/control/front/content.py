"""From the files of a sweep's trials to its front."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duqsweep.categories import SUCCESS_RATE, is_success_rate, named_category
from duqsweep.control.front.beliefs import Belief, read_beliefs
from duqsweep.control.front.factors import TWINS_DIR, Timings, factors
from duqsweep.control.front.importance import read_importances
from duqsweep.control.front.intervals import clustered_by_task
from duqsweep.control.front.measures import EPISODE_TIME_S, measures_of
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.pareto import Candidate, FrontDraws, hypervolume, non_dominated
from duqsweep.control.front.records import Front, FrontPoint, FrontReference
from duqsweep.control.front.reserved import judged, read_confirmation
from duqsweep.control.front.simulator import sweep_simulator
from duqsweep.control.front.stored import Look, stored_look
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.front.verdict import MARGIN, Verdict, verdict
from duqsweep.control.trials.reader import REFERENCE, TrialReader, TrialView, read_trials
from duqsweep.control.trials.reference import Reference, readable_reference
from duqsweep.result import ENDINGS

# Hypervolume is measured from success 0 and this multiple of the reference's time; every other
# objective from this multiple of the worst value of a trial.
SLACK = 1.5


def compute_front(
    sweep_dir: Path,
    objectives: Sequence[Objective],
    views: Sequence[TrialView] | None = None,
    margin: float = MARGIN,
) -> Front:
    """The front from what a sweep's folder holds now.

    Args:
        sweep_dir: The sweep's folder.
        objectives: What the sweep trades, most important first.
        views: Its trials, if they were just read.
        margin: Loss of success rate that the verdict tolerates.

    Raises:
        ConfigError: An objective is unknown.
    """
    views = read_trials(sweep_dir) if views is None else views
    return FrontBuilder(sweep_dir, objectives, margin).build(views)


def look_at(sweep_dir: Path, objectives: Sequence[Objective], margin: float = MARGIN) -> Look:
    """A sweep's front and trials; read from front.json as far as that still holds.

    Args:
        sweep_dir: The sweep's folder.
        objectives: What the sweep trades, most important first.
        margin: Loss of success rate that the verdict tolerates.

    Raises:
        ConfigError: An objective is unknown.
    """
    reader = TrialReader(sweep_dir)
    look = stored_look(sweep_dir, objectives, margin, reader)
    if look is not None:
        return look
    views = reader.read()
    front = compute_front(sweep_dir, objectives, views, margin)
    return Look(front, {view.number: view for view in views}, {}, dict(reader.damaged))


@dataclass(frozen=True)
class _Known:
    """A trial with a result, as it was when the front was built last."""

    view: TrialView
    point: FrontPoint
    row: list[float] | None  # its values; None: it is no candidate
    candidate: Candidate | None  # None too where success is no objective


class FrontBuilder:
    """Builds a sweep's front again and again; only trials that changed cost more than a look."""

    def __init__(
        self, sweep_dir: Path, objectives: Sequence[Objective], margin: float = MARGIN
    ) -> None:
        """The front of the sweep in `sweep_dir`.

        Args:
            sweep_dir: Its folder.
            objectives: What it trades, most important first.
            margin: Loss of success rate that the verdict tolerates.
        """
        self._dir, self._margin = sweep_dir, margin
        self._objectives = tuple(objectives)
        self._directions = [objective.direction for objective in objectives]
        self._rates = [o.name for o in objectives if is_success_rate(o.name)]
        self._costs = [(i, o) for i, o in enumerate(objectives) if not is_success_rate(o.name)]
        self._draws = FrontDraws([objective.measure.noise for _, objective in self._costs])
        self._twins = TrialReader(sweep_dir / TWINS_DIR)
        self._reference: Reference | None = None
        self._known: dict[int, _Known] = {}
        # The last front's points: as `_Known` has them, and at their places.
        self._placed_before: dict[int, tuple[FrontPoint, FrontPoint]] = {}

    def build(self, views: Sequence[TrialView]) -> Front:
        """The front of `views`, all trials by number.

        A point that is as it was is the same object as in the last front.

        Raises:
            ConfigError: An objective is unknown.
        """
        timed = readable_reference(self._dir, views)
        if timed != self._reference:
            self._reference = timed
            self._known.clear()
        ended = {view.number: self._look(view) for view in views if view.result}
        self._known = ended
        believed = read_beliefs(self._dir)
        beliefs = believed.by_number
        rows = {n: self._believed(n, k.row, beliefs) for n, k in ended.items() if k.row is not None}
        values = list(rows.values())
        flags = dict(zip(rows, non_dominated(values, self._directions), strict=True))
        chances: Mapping[int, float | None] = (
            {n: beliefs[n].p_front for n in rows if n in beliefs}
            if beliefs
            else self._chances(ended)
        )
        confirmed = read_confirmation(self._dir)
        states = judged(confirmed, self._margin) if confirmed else {}
        reference = _reference(views, timed)
        timings = Timings(views, self._twins.read())
        points = {}
        for number, known in ended.items():
            state, reserved = states.get(number, ("unconfirmed", None))
            place = {
                "on_front": flags.get(number, False),
                "p_front": chances.get(number),
                "success_mean": beliefs[number].mean if number in beliefs else None,
                "state": state,
                "reserved": reserved,
                "factors": factors(known.view, timings, reference.nominal_calls)
                if reference is not None and flags.get(number)
                else None,
            }
            points[number] = self._placed(known.point, place)
        self._placed_before = {n: (known.point, points[n]) for n, known in ended.items()}
        # A refuted trial must not hide those that it beats by the search's episodes alone.
        left = {n: row for n, row in rows.items() if points[n].state != "refuted"}
        on_front = non_dominated(list(left.values()), self._directions)
        tested = {n for n, flag in zip(left, on_front, strict=True) if flag}
        corner = worst_corner(values, self._objectives, reference)
        best = [row for number, row in rows.items() if flags[number]]
        return Front(
            sweep=self._dir.name,
            objectives=self._objectives,
            reference=reference,
            simulator=sweep_simulator(views),
            hypervolume=hypervolume(best, corner, self._directions),
            counts=count_outcomes(views),
            episodes=sum(len(view.episodes) for view in views),
            points=tuple(points.values()),
            answer=believed.answer,
            importances=read_importances(self._dir),
            verdict=_verdict([k.view for k in ended.values()], points, tested, self._margin),
        )

    def _look(self, view: TrialView) -> _Known:
        known = self._known.get(view.number)
        if known is not None and known.view is view:
            return known
        point = _point(view, self._reference)
        if not is_candidate(point, self._objectives):
            return _Known(view, point, None, None)
        row = objective_row(point, self._objectives)
        return _Known(view, point, row, self._candidate(view, row))

    def _candidate(self, view: TrialView, row: Sequence[float]) -> Candidate | None:
        if not self._rates:
            return None
        return Candidate(
            outcomes={e.i: e.success for e in view.episodes if e.error is None},
            costs=self._minimised(row),
            rates_of=tuple(_positions(view, named_category(name)) for name in self._rates),
        )

    def _minimised(self, row: Sequence[float]) -> tuple[float, ...]:
        """The objectives beside the success rates; smaller is better for all of them."""
        return tuple(-row[i] if o.direction == "maximize" else row[i] for i, o in self._costs)

    def _chances(self, ended: Mapping[int, _Known]) -> dict[int, float]:
        """The probability of each candidate to be on the front; of none without success rates."""
        candidates = {n: known.candidate for n, known in ended.items() if known.candidate}
        return {n: round(chance, 4) for n, chance in self._draws.update(candidates).items()}

    def _believed(
        self, number: int, row: Sequence[float], beliefs: Mapping[int, Belief]
    ) -> list[float]:
        """A candidate's values, with the model's instead of noisy ones where there is a model."""
        if number not in beliefs:
            return list(row)
        belief = beliefs[number]
        pairs = zip(self._objectives, row, strict=True)
        found = [belief.mean if is_success_rate(o.name) else value for o, value in pairs]
        if belief.costs is not None:
            for (i, objective), cost in zip(self._costs, belief.costs, strict=True):
                if objective.measure.noise:
                    found[i] = math.exp(-cost if objective.direction == "maximize" else cost)
        return found

    def _placed(self, point: FrontPoint, place: dict[str, Any]) -> FrontPoint:
        """The point at its place; the same object as before where nothing changed."""
        source, before = self._placed_before.get(point.trial, (None, point))
        if source is point and all(getattr(before, key) == place[key] for key in place):
            return before
        return replace(point, **place)


def _verdict(
    views: Sequence[TrialView],
    points: Mapping[int, FrontPoint],
    tested: Collection[int],
    margin: float,
) -> Verdict | None:
    """The verdict; None where no trial is the unquantized policy, or it played no episode.

    Args:
        views: All trials with a result.
        points: Of these trials.
        tested: Numbers of the trials that may pass: the front of those that were not refuted.
        margin: Loss of success rate that is tolerated.
    """
    named = next((view for view in views if view.trial.name == REFERENCE), None)
    if named is None or not named.counts.ran:
        return None
    times = {
        number: time
        for number in {*tested, named.number}
        if (time := points[number].value(EPISODE_TIME_S)) is not None
    }
    candidates = [(view, times[view.number]) for view in views if view.number in times]
    return verdict(candidates, named, margin, trials=len(views) - 1)


def count_outcomes(views: Sequence[TrialView]) -> dict[str, int]:
    """How many trials have each outcome, running ones included."""
    found = Counter(view.outcome for view in views)
    return {name: found[name] for name in (*ENDINGS, "running", "open")}


def _reference(views: Sequence[TrialView], timed: Reference | None) -> FrontReference | None:
    if timed is None or not views:
        return None
    named = next((view for view in views if view.trial.name == REFERENCE and view.result), None)
    calls = views[0].trial.spec.suite.nominal_calls
    return FrontReference(
        call_ms=timed.call_ms,
        nominal_calls=calls,
        episode_time_s=timed.episode_time_s(calls),
        timed_by_trial=timed.trial,
        hardware=timed.hardware,
        trial=named.number if named else None,
        success_rate=named.result.success_rate if named and named.result else None,
    )


def _point(view: TrialView, reference: Reference | None) -> FrontPoint:
    result, vitals, spec = view.result, view.vitals, view.trial.spec
    assert result is not None
    measures = measures_of(spec.suite)
    values = {name: measure.read(view, reference) for name, measure in measures.items()}
    del values[SUCCESS_RATE]  # part of the estimate
    by_task = clustered_by_task(_task_counts(view)) or (None, None)
    return FrontPoint(
        trial=view.number,
        name=view.trial.name,
        params=view.trial.params,
        success=SuccessEstimate.of(result.counts),
        measures=values,
        kernel=vitals.kernel if vitals else None,
        compile=spec.runtime.compile,
        num_steps=spec.policy.num_steps,
        layers_quantized=vitals.layers_quantized if vitals else None,
        on_front=False,
        p_front=None,
        outcome=result.outcome,
        reason=result.reason,
        error_type=result.error_type,
        success_low_by_task=by_task[0],
        success_high_by_task=by_task[1],
        categories={name: SuccessEstimate.of(c) for name, c in view.categories.items()},
    )


def _task_counts(view: TrialView) -> list[tuple[int, int]]:
    """Successes and episodes of each task; an episode that ended in an error is left out."""
    ran = [episode for episode in view.episodes if episode.error is None]
    episodes = Counter((episode.suite, episode.task) for episode in ran)
    successes = Counter((episode.suite, episode.task) for episode in ran if episode.success)
    return [(successes[task], count) for task, count in episodes.items()]


def is_candidate(point: FrontPoint, objectives: Sequence[Objective]) -> bool:
    """Whether a finished trial may be on the front.

    It must have run to its end and have every objective. A policy that played episodes and never
    succeeded, where that is an objective, is none, however fast.
    """
    rates = [point.value(o.measure) for o in objectives if is_success_rate(o.name)]
    return (
        point.outcome == "complete"
        and all(point.value(objective.measure) is not None for objective in objectives)
        and (any(rates or [point.success.success_rate]) or not point.success.counts.episodes)
    )


def objective_row(point: FrontPoint, objectives: Sequence[Objective]) -> list[float]:
    """The values of a candidate, in the order of `objectives`."""
    values = [point.value(objective.measure) for objective in objectives]
    return [value for value in values if value is not None]


def _positions(view: TrialView, category: str | None) -> frozenset[int] | None:
    """Ledger positions of the trial's episodes in a category; None stands for all."""
    if category is None:
        return None
    suite = view.trial.spec.suite
    return frozenset(e.i for e in view.episodes if suite.category(e.task) == category)


def worst_corner(
    values: Sequence[Sequence[float]],
    objectives: Sequence[Objective],
    reference: FrontReference | None,
) -> list[float]:
    """The worst corner of the hypervolume, see `SLACK`; the order of trials does not matter."""
    corner = []
    for i, objective in enumerate(objectives):
        worst = max((row[i] for row in values), default=0.0)
        at_reference = reference.value(objective.measure) if reference else None
        known = worst if at_reference is None else at_reference
        corner.append(0.0 if objective.direction == "maximize" else SLACK * known)
    return corner
