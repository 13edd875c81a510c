"""Sampler `kghv` in a sweep: its budget, its trials in Optuna, and changes of the sampler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import optuna
import pytest
from synthetic_sweep import OBJECTIVES
from test_search_contract import Evaluator, opened

from duqsweep import files
from duqsweep.assignment import Assignment
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.dispatch.inline import InlineDispatcher
from duqsweep.control.front.records import read_front
from duqsweep.control.kghv.chooser import Choice
from duqsweep.control.kghv.decider import Decider, Situation
from duqsweep.control.study.early_stopping import NoEarlyStopping
from duqsweep.control.study.kghv_search import GRACE_S, KghvSearch
from duqsweep.control.study.search import FixedBudgetSearch
from duqsweep.control.study.storage import open_storage
from duqsweep.control.sweep import Parts, Sweep
from duqsweep.control.sweep_files import FrontFiles, TrialFiles
from duqsweep.control.tracking.tracker import NullTracker
from duqsweep.control.trial_status import TrialStatus, write_status
from duqsweep.control.trials.reader import TrialReader, read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.control.view.progress import NullProgress
from duqsweep.errors import ConfigError

SWEEP = ("+sweep=dit_speed", "enqueue=[reference,plan_a]")
KGHV = ("sampler=kghv", "sampler.batch=4", "sampler.startup_trials=2")


def run(folder: Path, kind: type[FixedBudgetSearch] | type[KghvSearch], *words: str) -> Evaluator:
    folder.mkdir(exist_ok=True)
    evaluator = Evaluator()
    parts = Parts(
        search=opened(folder, kind, *SWEEP, *words),
        stopping=NoEarlyStopping(),
        dispatcher=InlineDispatcher(folder, lambda: evaluator),
        trials=TrialFiles(folder, TrialReader(folder)),
        front=FrontFiles(folder, OBJECTIVES),
        progress=NullProgress(),
        tracker=NullTracker(),
    )
    assert Sweep(folder, parts, lambda s: None).run() == "finished"
    return evaluator


def lengths(folder: Path) -> dict[int, int]:
    return {view.number: len(view.episodes) for view in read_trials(folder)}


def optuna_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = open_storage(folder, None)
    return optuna.load_study(study_name=None, storage=storage).get_trials()


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, int]]:
    """Episodes per trial after kghv, after kghv with more budget, and after tpe went on."""
    folder = tmp_path_factory.mktemp("kghv") / "s"
    found = []
    for kind, words in (
        (KghvSearch, (*KGHV, "budget.trials=4")),
        (KghvSearch, (*KGHV, "budget.trials=6")),
        (FixedBudgetSearch, ("sampler=tpe", "budget.trials=12")),
    ):
        evaluator = run(folder, kind, *words)
        assert len(set(evaluator.played)) == len(evaluator.played)
        found.append(lengths(folder))
        if kind is KghvSearch:
            front = read_front(folder)
            assert front is not None
            assert all(point.success_mean is not None for point in front.points)
        told = optuna_trials(folder)
        assert all(trial.state.is_finished() for trial in told)
        for trial in told:
            if "duplicate_of" not in trial.user_attrs:
                assert trial.user_attrs["episodes"] == found[-1][trial.number]
                low, high = (trial.user_attrs[f"success_{end}"] for end in ("low", "high"))
                assert 0 <= low <= trial.user_attrs["successes"] / trial.user_attrs["episodes"]
                assert high <= 1
    return found


def test_the_whole_budget_is_spent_and_not_more(steps):
    assert [sum(step.values()) for step in steps[:2]] == [32, 48]


def test_trials_get_unlike_numbers_of_episodes(steps):
    assert len(set(steps[1].values())) > 1


def test_more_budget_keeps_every_episode(steps):
    assert all(steps[1][number] >= count for number, count in steps[0].items())


def test_another_sampler_keeps_what_was_learnt_and_fills_up(steps):
    assert all(steps[2][number] == max(count, 8) for number, count in steps[1].items())
    assert len(steps[1]) < len(steps[2]) == 12


def test_an_assignment_that_a_reattached_job_reached_is_not_given_out_again(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    words = (*SWEEP, *KGHV, "budget.trials=4")
    first = opened(folder, KghvSearch, *words).next(())
    assert first is not None
    write_status(files.trial_dir(folder, first.trial), TrialStatus("running", "", 4))
    again = opened(folder, KghvSearch, *words)  # the controller is new, the job still runs
    Evaluator()(files.trial_dir(folder, first.trial), 4)
    then = again.next(())
    assert then is not None
    assert then.trial != first.trial


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["budget.episodes_per_trial=0"], "at least 1|starts at 1"),
        (["objectives=[{name: success_rate}]"], "exactly one success rate"),
        (["objectives=[{name: weights_mb},{name: call_ms}]"], "exactly one success rate"),
        (["objectives=[{name: success_rate},{name: steps_to_success}]"], "exactly one"),
        (["sampler.batch=-1"], "sampler.batch starts at 0, got -1"),
        (["sampler.least_success=90"], "from 0 to below 1, got 90"),
    ],
)
def test_a_sweep_that_it_cannot_search_is_refused(words, complaint, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        compose([*SWEEP, *KGHV, f"dir={tmp_path}", *words])


def test_a_batch_is_two_of_each_task_unless_trials_have_fewer(tmp_path):
    def batch(*words: str) -> int:
        return compose([*SWEEP, "sampler=kghv", f"dir={tmp_path}", *words]).batch

    assert batch("budget.episodes_per_trial=100") == 12
    assert batch("budget.episodes_per_trial=8") == 8
    assert batch("budget.episodes_per_trial=100", "sampler.batch=20") == 20


def started(folder: Path) -> None:
    """Plays the start points of a sweep, so that the next assignment is a decision of the model."""
    folder.mkdir()
    search = opened(folder, KghvSearch, *SWEEP, *KGHV, "budget.trials=8")
    for _ in range(3):
        assignment = search.next(())
        assert assignment is not None
        write_status(files.trial_dir(folder, assignment.trial), TrialStatus("running", "", 4))
        Evaluator()(files.trial_dir(folder, assignment.trial), 4)
        write_status(files.trial_dir(folder, assignment.trial), TrialStatus("paused", "", 4))
        ensure_reference(folder, read_trials(folder))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Set it, and the model goes on: until then every decision takes long."""
    may_go_on = Event()
    decide = Decider.decide

    def held_decide(self: Decider, situation: Situation) -> Choice | None:
        assert may_go_on.wait(10)
        return decide(self, situation)

    monkeypatch.setattr(Decider, "decide", held_decide)
    yield may_go_on
    may_go_on.set()


def settled(search: KghvSearch) -> Assignment | None:
    """The next assignment, however long the model takes."""
    deadline = time.monotonic() + 10
    while (assignment := search.next(())) is None and search.is_busy:
        assert time.monotonic() < deadline
    return assignment


def test_the_loop_goes_on_while_the_model_computes(tmp_path, held):
    started(tmp_path / "s")
    search = opened(tmp_path / "s", KghvSearch, *SWEEP, *KGHV, "budget.trials=8")
    assert isinstance(search, KghvSearch)
    for _ in range(3):  # asked again and again, it computes once
        began = time.monotonic()
        assert search.next(()) is None
        assert not search.poll()
        assert search.is_busy
        assert time.monotonic() - began < 20 * GRACE_S
    held.set()
    assert settled(search) is not None


def test_a_controller_killed_while_the_model_computes_decides_the_same(tmp_path, held):
    for name in ("whole", "killed"):
        started(tmp_path / name)
    words = (*SWEEP, *KGHV, "budget.trials=8")
    killed = opened(tmp_path / "killed", KghvSearch, *words)
    assert killed.next(()) is None
    assert killed.is_busy
    held.set()
    after = opened(tmp_path / "killed", KghvSearch, *words)
    whole = opened(tmp_path / "whole", KghvSearch, *words)
    assert isinstance(after, KghvSearch)
    assert isinstance(whole, KghvSearch)
    for turn in range(3):
        found = [settled(after), settled(whole)]
        assert found[0] == found[1]
        assert found[0] is not None
        for name in ("whole", "killed"):
            trial_dir = files.trial_dir(tmp_path / name, found[0].trial)
            write_status(trial_dir, TrialStatus("running", "", found[0].until_episode))
            Evaluator()(trial_dir, found[0].until_episode)
            write_status(trial_dir, TrialStatus("paused", "", found[0].until_episode))
        if turn == 1:
            after = opened(tmp_path / "killed", KghvSearch, *words)
            assert isinstance(after, KghvSearch)


def test_what_goes_wrong_in_the_models_thread_reaches_the_loop(tmp_path, monkeypatch):
    def broken(self: Decider, situation: Situation) -> Choice | None:
        raise FloatingPointError("a covariance of trial 3")

    started(tmp_path / "s")
    monkeypatch.setattr(Decider, "decide", broken)
    search = opened(tmp_path / "s", KghvSearch, *SWEEP, *KGHV, "budget.trials=8")
    assert isinstance(search, KghvSearch)
    with pytest.raises(FloatingPointError, match="trial 3"):
        settled(search)


def test_beliefs_leave_the_hyperparameters_of_decisions_alone(tmp_path):
    started(tmp_path / "s")
    search = opened(tmp_path / "s", KghvSearch, *SWEEP, *KGHV, "budget.trials=8")
    assert isinstance(search, KghvSearch)
    before = search._decider.hyperparameters
    search.observed(search._reader.read()[0])
    assert search.poll(10.0)
    assert (tmp_path / "s" / files.POSTERIOR_JSON).exists()
    assert search._decider.hyperparameters == before


def test_what_is_taken_in_while_an_assignment_is_sought_is_news_for_the_front(tmp_path):
    started(tmp_path / "s")
    words = (*SWEEP, *KGHV, "budget.trials=8", "budget.until='front@0.9'")
    search = opened(tmp_path / "s", KghvSearch, *words)
    assert isinstance(search, KghvSearch)
    settled(search)  # asks first whether the question is answered
    assert (tmp_path / "s" / files.POSTERIOR_JSON).exists()
    assert search.poll()
    assert not search.poll()
