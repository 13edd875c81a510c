"""The search hands out each different trial once and reports every result, also after restarts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from composed import composed_in
from synthetic_sweep import make_episodes, make_result, make_vitals

from duqsweep import files
from duqsweep.control.config.space import Space
from duqsweep.control.deaths import reopen
from duqsweep.control.study.early_stopping import Incumbent, PruneSlow, too_slow
from duqsweep.control.study.identity import identity
from duqsweep.control.study.optuna_study import OptunaStudy, open_study
from duqsweep.control.study.proposed import Study
from duqsweep.control.study.search import FixedBudgetSearch
from duqsweep.control.trial_status import State, TrialStatus, write_status
from duqsweep.control.trials.reader import TrialReader, TrialView, read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.errors import ConfigError
from duqsweep.result import TrialResult
from duqsweep.spec import Trial

# The six parameters of the document's strategies and four of its plans: what these tests count on.
BASE = ("~space.suite.replan_steps", "enqueue=[reference,seed_current,plan_a,plan_c]")


class ControllerRun:
    """One run of a controller; its trials are evaluated instantly."""

    def __init__(self, directory: Path, *overrides: str, sweep: str = "dit_speed") -> None:
        directory.mkdir(exist_ok=True)
        base = BASE if sweep == "dit_speed" else ()
        self.config = composed_in(directory, f"+sweep={sweep}", *base, *overrides)
        self.space = Space.from_config(self.config)
        self.study: OptunaStudy = open_study(self.config, self.space)
        if not (directory / files.SWEEP_YAML).exists():
            parts = identity(self.config, self.space)
            files.write_json(directory / files.IDENTITY_JSON, parts)
            files.write_text(directory / files.SWEEP_YAML, self.config.yaml)
        self.stopping = PruneSlow(self.config, TrialReader(directory))
        self.search = self.search_with(self.study)
        self.directory = directory

    def search_with(self, study: Study) -> FixedBudgetSearch:
        reader = TrialReader(self.config.directory)
        return FixedBudgetSearch(study, self.space, self.config, self.stopping, reader)

    def trial(self, number: int) -> Trial:
        return Trial.from_json(
            files.read_json(files.trial_dir(self.directory, number) / files.SPEC_JSON)
        )

    def evaluate(self, number: int, speedup: float = 1.5, rate: float = 0.9) -> TrialView:
        """Write what a worker would, for all episodes of the budget."""
        trial, folder = self.trial(number), files.trial_dir(self.directory, number)
        count = self.config.budget.episodes_per_trial
        vitals, episodes = make_vitals(trial, speedup), make_episodes(number, count, rate)
        files.write_json(folder / files.VITALS_JSON, vitals.to_json())
        for episode in episodes:
            files.append_line(folder / files.EPISODES_JSONL, episode.to_json())
        result = make_result(episodes)
        files.write_json(folder / files.RESULT_JSON, result.to_json())
        return self.conclude(number, "complete")

    def conclude(self, number: int, state: State) -> TrialView:
        """What the loop writes when a trial has a result."""
        folder = files.trial_dir(self.directory, number)
        until = self.config.budget.episodes_per_trial
        write_status(folder, TrialStatus(state, "", until))
        return self.view(number)

    def crash(self, number: int) -> TrialView:
        result = TrialResult("failed", "boom", 0, 0, 0, None, "EvaluationError", "Traceback")
        path = files.trial_dir(self.directory, number) / files.RESULT_JSON
        files.write_json(path, result.to_json())
        return self.conclude(number, "failed")

    def view(self, number: int) -> TrialView:
        view = TrialReader(self.directory).view(number)
        ensure_reference(self.directory, [view])
        return view

    def run(self) -> list[int]:
        """Run to the end; the numbers of the trials that were handed out."""
        handed = []
        while (assignment := self.search.next(())) is not None:
            handed.append(assignment.trial)
            self.search.ended(self.evaluate(assignment.trial))
        return handed


def test_the_budget_is_spent_on_different_trials_plans_first(tmp_path):
    controller = ControllerRun(tmp_path, "budget.trials=10")
    handed = controller.run()
    assert len(handed) == len(set(handed)) == 10
    trials = [controller.trial(number) for number in handed]
    assert [trial.name for trial in trials[:4]] == ["reference", "seed_current", "plan_a", "plan_c"]
    assert len({trial.fingerprint for trial in trials}) == 10


def test_an_assignment_goes_to_the_episodes_of_the_budget_and_its_spec_is_written(tmp_path):
    controller = ControllerRun(tmp_path, "budget.episodes_per_trial=9")
    assignment = controller.search.next(())
    assert assignment.until_episode == 9
    assert controller.trial(assignment.trial).spec.quant.rules == ()


def test_the_same_command_again_hands_out_nothing_and_writes_nothing(tmp_path):
    ControllerRun(tmp_path, "budget.trials=6").run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert ControllerRun(tmp_path, "budget.trials=6").run() == []
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path):
    first = ControllerRun(tmp_path, "budget.trials=5").run()
    second = ControllerRun(tmp_path, "budget.trials=8").run()
    assert len(second) == 3
    assert not set(first) & set(second)


def test_a_trial_that_was_handed_out_and_not_ended_is_handed_out_again(tmp_path):
    controller = ControllerRun(tmp_path)
    first, second = controller.search.next(()), controller.search.next(())
    controller.search.ended(controller.evaluate(first.trial))
    later = ControllerRun(tmp_path)
    assert later.search.next(()) == second
    assert later.search.next(()).trial > second.trial


def test_a_trial_that_still_runs_is_not_handed_out_twice(tmp_path):
    running = ControllerRun(tmp_path).search.next(())
    later = ControllerRun(tmp_path)
    assert later.search.next([running]).trial != running.trial
    later.search.ended(later.evaluate(running.trial))
    assert later.study.history()[0].proposed.number == running.trial


def test_a_result_that_no_one_told_is_told_by_the_next_life(tmp_path):
    controller = ControllerRun(tmp_path)
    assignment = controller.search.next(())
    controller.evaluate(assignment.trial)
    later = ControllerRun(tmp_path)
    assert later.search.next(()).trial != assignment.trial
    assert [told.proposed.number for told in later.study.history()] == [assignment.trial]


def test_a_trial_that_was_only_stopped_goes_on(tmp_path):
    controller = ControllerRun(tmp_path)
    assignment = controller.search.next(())
    view = controller.evaluate(assignment.trial)
    stopped = dataclasses.replace(view.result, outcome="stopped", reason="asked to")
    path = files.trial_dir(tmp_path, assignment.trial) / files.RESULT_JSON
    files.write_json(path, stopped.to_json())
    controller.conclude(assignment.trial, "stopped")
    assert ControllerRun(tmp_path).search.next(()) == assignment


def test_a_trial_without_a_result_is_never_told_and_the_next_start_takes_it_up(tmp_path):
    controller = ControllerRun(tmp_path)
    open_trial, other = controller.search.next(()), controller.search.next(())
    controller.search.ended(controller.evaluate(other.trial))
    assert [told.proposed.number for told in controller.study.history()] == [other.trial]
    assert ControllerRun(tmp_path).search.next(()) == open_trial


def test_a_failed_trial_that_a_person_retries_is_forgotten_and_evaluated_again(tmp_path):
    controller = ControllerRun(tmp_path)
    first, second = controller.search.next(()), controller.search.next(())
    controller.search.ended(controller.evaluate(first.trial))
    controller.search.ended(controller.crash(second.trial))
    reopen(files.trial_dir(tmp_path, second.trial))
    later = ControllerRun(tmp_path)
    assert [told.proposed.number for told in later.study.history()] == [first.trial]
    assert later.search.next(()) == second
    later.search.ended(later.evaluate(second.trial))
    assert [told.attrs["outcome"] for told in later.study.history()] == ["complete"] * 2


def test_told_trials_go_on_when_the_budget_gives_them_more_episodes(tmp_path):
    controller = ControllerRun(tmp_path, "budget.trials=2")
    controller.run()
    before = {told.proposed.number: told.values for told in controller.study.history()}
    longer = ControllerRun(tmp_path, "budget.trials=2", "budget.episodes_per_trial=20")
    assert longer.study.history() == []
    assert longer.run() == list(before)
    assert [told.attrs["episodes"] for told in longer.study.history()] == [20, 20]
    again = ControllerRun(tmp_path, "budget.trials=2", "budget.episodes_per_trial=20")
    assert again.search.next(()) is None


def test_a_trial_that_reached_a_smaller_budget_is_paused_and_resumed(tmp_path):
    """A job of an earlier controller still ran when the budget was raised."""
    running = ControllerRun(tmp_path, "budget.trials=1").search.next(())
    longer = ControllerRun(tmp_path, "budget.trials=1", "budget.episodes_per_trial=20")
    assert longer.search.next([running]) is None
    longer.config = ControllerRun(
        tmp_path / "b", "budget.trials=1"
    ).config  # what the job was given
    view = longer.evaluate(running.trial)
    assert not longer.search.is_final(view)
    longer.search.observed(longer.conclude(running.trial, "paused"))
    assert longer.search.next(()) == dataclasses.replace(running, until_episode=20)


def test_equal_trials_are_evaluated_once(tmp_path):
    words = ["enqueue=[]", "space.quant.include=choice(none)", "budget.trials=12"]
    controller = ControllerRun(tmp_path, *words, "sampler=random", "~space.runtime.compile")
    handed = controller.run()
    # Without a quantized layer only the number of steps is left to differ in.
    steps = {controller.trial(number).spec.policy.num_steps for number in handed}
    assert len(handed) == len(steps) == 10
    told = controller.study.history()
    originals = {t.proposed.number: t.values for t in told if t.duplicate_of is None}
    assert set(originals) == set(handed)
    assert all(t.values == originals[t.duplicate_of] for t in told if t.duplicate_of is not None)


class Stubborn:
    """A study whose sampler always proposes the same point."""

    def __init__(self, study: OptunaStudy) -> None:
        self.running, self.tell, self.duplicate = study.running, study.tell, study.duplicate
        self.told, self.reopen, self.refuse = study.told, study.reopen, study.refuse
        self._ask = study.ask

    def ask(self, point=None):
        return self._ask(point or {"quant.block_size": 16, "policy.num_steps": 1})


def test_a_sampler_that_repeats_itself_does_not_end_the_search(tmp_path):
    space = ["space.quant.block_size=choice(16, 32)", "+space.policy.num_steps=range(1, 5)"]
    words = [*space, "budget.trials=6", "enqueue=[]"]
    controller = ControllerRun(tmp_path, *words, sweep="smoke")
    controller.search = controller.search_with(Stubborn(controller.study))
    assert len(controller.run()) == 6


def test_a_crash_is_told_as_the_worst_that_was_seen(tmp_path):
    controller = ControllerRun(tmp_path)
    first, second = controller.search.next(()), controller.search.next(())
    controller.search.ended(controller.evaluate(first.trial, speedup=0.8))
    controller.search.ended(controller.crash(second.trial))
    told = controller.study.history()
    assert told[1].values == (0.0, told[0].values[1])
    assert told[1].attrs["outcome"] == "failed"


def test_a_crash_before_anything_is_known_is_told_once_something_is(tmp_path):
    controller = ControllerRun(tmp_path)
    first, second = controller.search.next(()), controller.search.next(())
    controller.search.ended(controller.crash(first.trial))
    assert controller.study.history() == []
    controller.search.ended(controller.evaluate(second.trial))
    told = {told.proposed.number: told.values[0] for told in controller.study.history()}
    assert told[first.trial] == 0.0
    assert told[second.trial] > 0.5


def test_told_values_are_success_and_the_sweeps_own_seconds(tmp_path):
    controller = ControllerRun(tmp_path)
    assignment = controller.search.next(())
    view = controller.evaluate(assignment.trial, speedup=2.0)
    controller.search.ended(view)
    (told,) = controller.study.history()
    calls = view.trial.spec.suite.nominal_calls
    assert told.values == pytest.approx(
        (view.result.success_rate, view.vitals.reference_call_ms / 1000 / 2.0 * calls)
    )


def test_slower_than_the_reference_is_pruned_before_any_episode():
    assert "slower than the unquantized policy" in too_slow(0.9, 0, 0, [])
    assert too_slow(0.97, 0, 0, []) is None  # within the margin of the clock
    assert too_slow(1.3, 0, 0, []) is None


def test_slower_than_an_incumbent_that_surely_succeeds_as_often_is_pruned():
    sure, unsure = Incumbent(3, 2.0, 60, 60), Incumbent(3, 2.0, 11, 12)
    assert "slower than trial 3" in too_slow(1.5, 0, 0, [sure])
    assert too_slow(1.5, 0, 0, [unsure]) is None
    assert too_slow(1.95, 0, 0, [sure]) is None
    assert too_slow(2.5, 0, 0, [sure]) is None
    assert too_slow(1.5, 2, 12, [unsure]) is not None


def test_plans_and_sweeps_of_other_objectives_prune_nothing(tmp_path):
    controller = ControllerRun(tmp_path, "enqueue=[reference]")
    plan, point = controller.search.next(()), controller.search.next(())
    slow_plan = controller.evaluate(plan.trial, speedup=0.2)
    slow_point = controller.evaluate(point.trial, speedup=0.2)
    assert controller.stopping.decide(slow_plan) is None
    assert controller.stopping.min_speedup(slow_plan.trial) == 0
    assert "0.20 times" in controller.stopping.decide(slow_point).cause
    assert 0.2 < slow_point.trial.min_speedup == controller.stopping.min_speedup(slow_point.trial)
    three = "objectives=[{name: success_rate}, {name: episode_time_s}, {name: weights_mb}]"
    other = ControllerRun(tmp_path / "b", "enqueue=[]", three)
    view = other.evaluate(other.search.next(()).trial, speedup=0.2)
    assert other.stopping.decide(view) is None


def test_a_pruned_trial_is_told_by_the_next_controller_instead_of_being_resumed(tmp_path):
    controller = ControllerRun(tmp_path, "enqueue=[]")
    assignment = controller.search.next(())
    controller.evaluate(assignment.trial, speedup=0.3)
    stopped = TrialResult("stopped", "too slow", 0, 0, 0, None)
    folder = files.trial_dir(tmp_path, assignment.trial)
    files.write_json(folder / files.RESULT_JSON, stopped.to_json())
    controller.conclude(assignment.trial, "pruned")
    later = ControllerRun(tmp_path, "enqueue=[]")
    assert later.search.next(()).trial != assignment.trial
    (told,) = later.study.history()
    assert told.attrs["outcome"] == "stopped"
    assert len(read_trials(tmp_path)) == 2


def test_a_proposal_that_cannot_exist_is_told_as_failed_and_the_search_goes_on(tmp_path):
    words = ["space.quant.block_size=choice(16, 32)", "+space.policy.num_steps=range(1, 5)"]
    controller = ControllerRun(tmp_path, *words, "budget.trials=3", "enqueue=[]", sweep="smoke")
    possible = controller.space.spec

    def spec(params):
        if params.items() >= {"quant.block_size": 16, "policy.num_steps": 1}.items():
            raise ConfigError("such a block does not fit")
        return possible(params)

    object.__setattr__(controller.space, "spec", spec)
    controller.search = controller.search_with(Stubborn(controller.study))
    assert len(controller.run()) == 3
    failed = [t for t in controller.study._study.trials if t.state.name == "FAIL"]
    assert {t.user_attrs["reason"] for t in failed} == {"such a block does not fit"}
    assert len(controller.study.history()) == 3
