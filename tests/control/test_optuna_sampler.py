"""The sampler for Optuna alone: a `BaseSampler` that reads counts from user attributes."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from duqsweep.control.kghv.optuna_sampler import KghvSampler

EXAMPLE = Path(__file__).parents[2] / "examples" / "optunahub_kghv"
SPACE = {
    "bits": CategoricalDistribution([2, 4, 8]),
    "steps": IntDistribution(1, 10),
    "one": CategoricalDistribution(["only"]),
}
optuna.logging.set_verbosity(optuna.logging.WARNING)


def new_study(directions=("maximize", "minimize"), **options) -> optuna.Study:
    options = {"batch": 10, "n_startup_trials": 4, "seed": 3} | options
    return optuna.create_study(directions=directions, sampler=KghvSampler(**options))


def play(study: optuna.Study, trials: int, costs: int = 1) -> list[dict]:
    """Many bits and steps succeed; few are cheap."""
    proposed = []
    for _ in range(trials):
        trial = study.ask(SPACE)
        rng = random.Random(trial.number)
        chance = {2: 0.1, 4: 0.85, 8: 0.95}[trial.params["bits"]]
        successes = sum(rng.random() < chance for _ in range(10))
        trial.set_user_attr("episodes", 10)
        trial.set_user_attr("successes", successes)
        cost = 1.0 + 0.1 * trial.params["steps"]
        study.tell(trial, [successes / 10, *[cost] * costs])
        proposed.append(trial.params)
    return proposed


def test_known_points_are_proposed_again_and_the_hopeless_ones_are_not():
    study = new_study()
    proposed = play(study, 40)
    keys = [tuple(params.items()) for params in proposed]
    assert len(set(keys)) < len(keys)
    assert sum(params["bits"] == 2 for params in proposed[12:]) < 8
    assert all(params["one"] == "only" for params in proposed)


def test_proposals_follow_from_the_study_the_seed_and_the_number():
    studies = [new_study(search_space=SPACE) for _ in range(2)]
    assert play(studies[0], 14) == play(studies[1], 14)
    assert play(studies[0], 4) != play(new_study(search_space=SPACE, seed=4), 18)[14:]


def test_where_a_point_continues():
    study = new_study()
    play(study, 3)
    study.enqueue_trial(study.trials[1].params)
    again = study.ask(SPACE)
    assert study.sampler.played(again) == 10
    steps = {trial.params["steps"] for trial in study.trials}
    study.enqueue_trial({"bits": 8, "steps": next(n for n in range(1, 11) if n not in steps)})
    assert study.sampler.played(study.ask(SPACE)) == 0


def test_running_trials_are_not_proposed_again_and_failed_ones_neither():
    study = new_study()
    play(study, 8)
    for _ in range(4):
        trial = study.ask(SPACE)
        study.tell(trial, state=TrialState.FAIL)
    crashed = [t.params for t in study.trials if t.state == TrialState.FAIL]
    running = [study.ask(SPACE).params for _ in range(4)]
    assert not [params for params in running if params in crashed]
    assert len({tuple(params.items()) for params in running}) == 4


def test_several_costs_of_either_direction():
    study = new_study(("minimize", "maximize", "maximize"), success=1)
    for _ in range(12):
        trial = study.ask(SPACE)
        trial.set_user_attr("episodes", 10)
        trial.set_user_attr("successes", 5)
        study.tell(trial, [1.0 * trial.params["steps"], 0.5, 2.0 * trial.params["bits"]])
    later = [trial.params for trial in study.trials[4:]]  # the best has few steps and many bits
    assert sum(params["steps"] <= 3 for params in later) >= 4
    assert sum(params["bits"] == 8 for params in later) >= 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KghvSampler(0), "batch and n_startup_trials start at 1.*got 0"),
        (lambda: play(new_study(("maximize",)), 6, costs=0), "at least one more objective"),
        (lambda: play(new_study(("minimize", "minimize")), 6), "must be maximised"),
        (lambda: play(new_study(success=2), 6), "2 objectives, and the success rate is number 2"),
    ],
)
def test_a_study_that_it_cannot_search_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("value", [None, -1, 2.5, True])
def test_a_trial_without_counts_is_named(value):
    study = new_study()
    play(study, 3)
    trial = study.ask(SPACE)
    trial.set_user_attr("episodes", value)
    study.tell(trial, [0.5, 1.0])
    with pytest.raises(ValueError, match="trial 3 needs the user attribute"):
        study.ask(SPACE)


def test_a_cost_that_has_no_logarithm_is_named():
    study = new_study()
    play(study, 3)
    trial = study.ask(SPACE)
    trial.set_user_attr("episodes", 10)
    trial.set_user_attr("successes", 5)
    study.tell(trial, [0.5, 0.0])
    with pytest.raises(ValueError, match=r"objective 1 of trial 3 must be above 0, got 0\.0"):
        study.ask(SPACE)


def test_the_example_of_optunahub_runs_and_spends_its_episodes_on_the_front():
    spec = importlib.util.spec_from_file_location("kghv_example", EXAMPLE / "example.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    points = example.run(batches=30)
    assert sum(row[1] for row in points.values()) == 30 * example.BATCH
    good = [key for key, row in points.items() if row[1] > example.BATCH]
    assert good
    assert all(bits > 2 or points[bits, steps][1] <= 40 for bits, steps in points)
    header = (EXAMPLE / "README.md").read_text(encoding="utf-8").split("---")[1]
    for key in ("author", "title", "description", "tags", "optuna_versions", "license"):
        assert f"\n{key}: " in header
