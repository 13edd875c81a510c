"""What a study proposes does not depend on whether its controller was killed."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest

from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.study import windowed_tpe
from duqsweep.control.study.optuna_study import OptunaStudy, open_study
from duqsweep.control.study.windowed_tpe import RECENT, WindowedTPE, Windows

TRIALS = 14


def values_of(params: dict) -> tuple[float, float]:
    return 1 / params["quant.weight_bits.default"], float(params["policy.num_steps"])


def open_it(folder: Path, sampler: str) -> OptunaStudy:
    folder.mkdir(exist_ok=True)
    words = [
        "+space={quant.weight_bits.default:'choice(2,3,4,8)',"
        "policy.num_steps:'int(interval(1,10))',quant.smoothing:'interval(0,1)'}",
        "quant.include=dit_all",
        "sampler.startup_trials=4",
    ]
    config = compose(["name=seeded", f"dir={folder}", *words, f"sampler={sampler}"])
    return open_study(config, Space.from_config(config))


@pytest.mark.fault(
    "controller killed between a proposal and its trial", "the same settings are proposed"
)
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_killed_controller_proposes_what_it_would_have_proposed(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    proposed: dict[str, list[dict]] = {"whole": [], "killed": []}
    for name, asked in proposed.items():
        study = open_it(tmp_path / name, sampler)
        for number in range(TRIALS):
            if name == "killed" and number in (5, 9):
                study = open_it(tmp_path / name, sampler)
            trial = study.ask()
            assert trial is not None
            if name == "killed" and number == 7:  # before it was told
                study = open_it(tmp_path / name, sampler)
                assert [one.params for one in study.running()] == [trial.params]
            asked.append(trial.params)
            study.tell(trial.number, values_of(trial.params), {})
    assert proposed["killed"] == proposed["whole"]


def test_of_a_long_study_tpe_sees_the_front_and_the_latest_trials():
    study = optuna.create_study(directions=["minimize", "minimize"])
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for number in range(RECENT + 50):
        value = 0.0 if number == 3 else 1.0
        frozen = optuna.create_trial(params={"x": 0.5}, distributions=space, values=[value, value])
        study.add_trial(frozen)
    window = Windows().of(study, study.get_trials(deepcopy=False)[-1])
    seen = window._get_trials(False, (optuna.trial.TrialState.COMPLETE,), True)
    assert [trial.number for trial in seen] == [3, *range(50, RECENT + 50)]


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_short_study_is_what_optuna_itself_would_see(objectives, monkeypatch):
    divided = []
    split = windowed_tpe._split_trials
    monkeypatch.setattr(windowed_tpe, "_split_trials", lambda *a: divided.append(1) or split(*a))

    def objective(trial):
        x, kind = trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["a", "b"])
        return [(x - 0.3) ** 2, x + (kind == "a")][:objectives]

    drawn = []
    for sampler in (
        WindowedTPE(Windows(), seed=1, n_startup_trials=3),
        optuna.samplers.TPESampler(seed=1, n_startup_trials=3),
    ):
        study = optuna.create_study(sampler=sampler, directions=["minimize"] * objectives)
        study.optimize(objective, n_trials=12)
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]
    assert len(divided) == 12 - 3  # once per trial, not per parameter


def test_a_long_study_is_seen_alike_by_a_sampler_that_followed_it_and_by_a_new_one():
    sampler = optuna.samplers.RandomSampler(seed=7)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    draw = random.Random(7)
    followed = Windows()
    for number in range(RECENT + 120):
        asked = study.ask(space)
        if number > RECENT:
            now = study.trials[-1]
            seen = [one.number for one in followed.of(study, now)._trials]
            assert seen == [one.number for one in Windows().of(study, now)._trials]
        best = number == 3
        study.tell(asked, [1.0 if best else draw.randrange(40) / 40, draw.randrange(40) / 40])
    assert min(seen) == 3
    assert len(seen) > RECENT


def test_values_of_a_long_study_are_converted_once(monkeypatch):
    converted = []
    convert = optuna.distributions.FloatDistribution.to_internal_repr
    monkeypatch.setattr(
        optuna.distributions.FloatDistribution,
        "to_internal_repr",
        lambda self, value: converted.append(value) or convert(self, value),
    )
    windows, drawn = Windows(), []
    for sampler in (
        WindowedTPE(windows, seed=1, n_startup_trials=3),
        optuna.samplers.TPESampler(seed=1, n_startup_trials=3),
    ):
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: trial.suggest_float("x", -9, 9) ** 2, n_trials=30)
        drawn.append((len(converted), [trial.params for trial in study.trials]))
        converted.clear()
    (ours, our_params), (optunas, their_params) = drawn
    assert our_params == their_params
    assert 4 * ours < optunas
