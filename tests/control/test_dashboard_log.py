"""The copy of the study that Optuna's plots and dashboard show: with the reference."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from composed import composed_in
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from duqsweep import files
from duqsweep.control.config.space import Space
from duqsweep.control.study.optuna_study import OptunaStudy, open_study

ENQUEUED = "enqueue=[reference,seed_current,plan_a]"  # the first two are no points of the space


def drained(directory: Path, count: int, *overrides: str) -> OptunaStudy:
    config = composed_in(directory, "+sweep=dit_speed", ENQUEUED, *overrides)
    study = open_study(config, Space.from_config(config))
    for number in range(count):
        trial = study.ask()
        assert trial is not None
        steps = float(trial.params.get("policy.num_steps", 10))
        study.tell(number, (1 - 1 / (1 + steps), steps), {})
    return study


def copied(directory: Path) -> optuna.Study:
    journal = JournalStorage(JournalFileBackend(str(directory / files.DASHBOARD_LOG)))
    return optuna.load_study(study_name=None, storage=journal)


@pytest.fixture
def study(tmp_path: Path) -> OptunaStudy:
    study = drained(tmp_path, 12)
    study.ask()  # runs
    study.write_dashboard(tmp_path)
    return study


def test_the_reference_is_a_complete_trial_with_the_settings_that_make_it_one(study, tmp_path):
    trial = copied(tmp_path).trials[0]
    assert trial.user_attrs["plan"] == "reference"
    assert (trial.state, trial.values) == (TrialState.COMPLETE, pytest.approx([1 - 1 / 11, 10.0]))
    assert trial.params["quant.include"] == "none"
    assert (trial.params["policy.num_steps"], trial.params["runtime.compile"]) == (10, False)


def test_every_trial_keeps_its_number_its_values_and_what_it_searched(study, tmp_path):
    of_sampler, of_people = study._study.trials, copied(tmp_path).trials
    assert [t.state.name for t in of_people] == ["COMPLETE"] * 12 + ["RUNNING"]
    for mine, shown in zip(of_sampler[2:12], of_people[2:12], strict=True):
        assert shown.values == mine.values
        assert shown.params | mine.params == shown.params
        assert shown.params["quant.kernel"] == "fake"  # the base's; seed_current has another
        assert shown.datetime_start == mine.datetime_start
    assert of_people[1].params["quant.kernel"] == "loop"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optunas_tools_use_the_copy(study, tmp_path):
    from optuna.visualization.matplotlib import plot_pareto_front  # Matplotlib's pyplot is slow

    copy = copied(tmp_path)
    assert copy.study_name == "dit_speed with the reference"
    assert copy.metric_names == ["success_rate", "episode_time_s"]
    axes = plot_pareto_front(copy)
    drawn = [tuple(point) for part in axes.collections for point in part.get_offsets()]
    assert tuple(copy.trials[0].values) in drawn
    of_study = plot_pareto_front(study._study)
    assert len(drawn) == sum(len(part.get_offsets()) for part in of_study.collections) + 2


def test_the_sampler_proposes_the_same_with_and_without_the_copy(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with_copy, without = drained(tmp_path / "a", 12), drained(tmp_path / "b", 12)
    with_copy.write_dashboard(tmp_path / "a")
    assert [with_copy.ask() for _ in range(3)] == [without.ask() for _ in range(3)]
    assert [t.state.name for t in with_copy._study.trials[:2]] == ["PRUNED", "PRUNED"]


def test_it_is_written_anew_each_time(study, tmp_path):
    size = (tmp_path / files.DASHBOARD_LOG).stat().st_size
    study.write_dashboard(tmp_path)
    assert (tmp_path / files.DASHBOARD_LOG).stat().st_size == size
    assert len(copied(tmp_path).trials) == 13


def test_a_sweep_of_plans_alone_has_one_too(tmp_path):
    config = composed_in(tmp_path, "+sweep=seed_plans")
    study = open_study(config, Space.from_config(config))
    for number in range(3):
        study.ask()
        study.tell(number, (0.5, float(number)), {})
    study.write_dashboard(tmp_path)
    shown = copied(tmp_path).trials
    assert [trial.state.name for trial in shown] == ["COMPLETE"] * 3
    assert [trial.params["quant.include"] for trial in shown] == ["none", "dit_all", "dit_all"]
    assert [trial.params["runtime.compile"] for trial in shown] == [False, False, True]
