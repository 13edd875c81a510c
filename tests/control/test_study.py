"""The study proposes and records trials across restarts, without losing or repeating one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from composed import composed_in

from duqsweep import files
from duqsweep.control.config.space import Space
from duqsweep.control.study.controller_lock import controller_lock
from duqsweep.control.study.optuna_study import OptunaStudy, open_study
from duqsweep.control.study.storage import cut_torn_line
from duqsweep.errors import ConfigError

VALUES = (0.5, 1.0)


# The six parameters of the document's strategies and four of its plans: what these tests count on.
BASE = ("~space.suite.replan_steps", "enqueue=[reference,seed_current,plan_a,plan_c]")


def opened(directory: Path, *overrides: str, sweep: str = "dit_speed") -> OptunaStudy:
    directory.mkdir(exist_ok=True)
    base = BASE if sweep == "dit_speed" else ()
    config = composed_in(directory, f"+sweep={sweep}", *base, *overrides)
    return open_study(config, Space.from_config(config))


def drain(study: OptunaStudy, count: int) -> list:
    """Ask and tell `count` trials with values that depend on their settings."""
    asked = []
    for _ in range(count):
        trial = study.ask()
        assert trial is not None
        asked.append(trial)
        steps = trial.params.get("policy.num_steps", 10)
        study.tell(trial.number, (1 - 1 / (1 + steps), float(steps)), {})
    return asked


def test_plans_come_first_in_the_order_they_are_listed(tmp_path):
    asked = drain(opened(tmp_path), 6)
    names = [trial.name for trial in asked]
    assert names[:4] == ["reference", "seed_current", "plan_a", "plan_c"]
    assert names[4:] == [None, None]
    assert [trial.number for trial in asked] == list(range(6))


def test_a_sweep_of_plans_alone_ends_with_the_last_one(tmp_path):
    study = opened(tmp_path, sweep="seed_plans")
    assert len(drain(study, 7)) == 7
    assert study.ask() is None
    assert opened(tmp_path, sweep="seed_plans").ask() is None


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "gp"])
def test_every_sampler_goes_on_after_plans_that_lie_outside_the_space(tmp_path, sampler):
    words = [f"sampler={sampler}", "sampler.startup_trials=4", "sampler.population=4"]
    study = opened(tmp_path, *words)
    params = [trial.params for trial in drain(study, 12)]
    assert all(len(point) == 6 for point in params[4:])


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_samplers_take_conditional_parameters(tmp_path, sampler):
    study = opened(
        tmp_path,
        f"sampler={sampler}",
        "sampler.startup_trials=3",
        "sampler.population=3",
        "enqueue=[]",
        "space.quant.rotation=choice(hadamard, none)",
        "when.quant.block_size=quant.rotation != none",
    )
    for trial in drain(study, 10):
        has_block = "quant.block_size" in trial.params
        assert has_block == (trial.params["quant.rotation"] == "hadamard")


def test_values_of_plans_outside_the_space_are_kept_from_the_sampler_but_not_lost(tmp_path):
    study = opened(tmp_path)
    drain(study, 5)
    told = study.history()
    assert [t.proposed.name for t in told[:3]] == ["reference", "seed_current", "plan_a"]
    assert told[0].proposed.params["quant.include"] == "none"
    assert told[0].values == pytest.approx((1 - 1 / 11, 10.0))
    states = [t.state.name for t in study._study.get_trials()]
    assert states == ["PRUNED", "PRUNED", "COMPLETE", "COMPLETE", "COMPLETE"]
    names = {"success_rate": told[0].values[0], "episode_time_s": told[0].values[1]}
    assert study._study.user_attrs["reference"] == names


def test_the_same_seed_asks_the_same_trials(tmp_path):
    first = [t.params for t in drain(opened(tmp_path / "a"), 9)]
    assert [t.params for t in drain(opened(tmp_path / "b"), 9)] == first
    assert [t.params for t in drain(opened(tmp_path / "c", "seed=8"), 9)] != first


def test_a_second_life_knows_what_was_told_and_what_still_runs(tmp_path):
    first = opened(tmp_path)
    told = drain(first, 5)
    left = [first.ask(), first.ask()]
    second = opened(tmp_path)
    assert second.running() == left
    assert [t.proposed for t in second.history()] == told
    second.tell(left[0].number, VALUES, {"outcome": "complete"})
    assert second.running() == left[1:]
    assert second.history()[-1].attrs["outcome"] == "complete"


def test_a_plan_outside_the_space_is_taken_up_by_the_next_life(tmp_path):
    asked = opened(tmp_path).ask()
    second = opened(tmp_path)
    assert second.running() == [asked]
    second.tell(asked.number, VALUES, {})
    assert opened(tmp_path).running() == []
    assert opened(tmp_path).ask().name == "seed_current"


def test_a_resumed_sampler_does_not_repeat_its_first_draws(tmp_path):
    words = ["sampler=random", "enqueue=[]"]
    first = [t.params for t in drain(opened(tmp_path, *words), 4)]
    second = [t.params for t in drain(opened(tmp_path, *words), 4)]
    assert not [point for point in second if point in first]


def test_settings_that_a_killed_life_had_not_drawn_are_drawn_by_the_next(tmp_path):
    study = opened(tmp_path, "enqueue=[]")
    half = study._study.ask()
    half.suggest_categorical("runtime.compile", (True, False))
    (resumed,) = opened(tmp_path, "enqueue=[]").running()
    assert len(resumed.params) == 6
    assert resumed.params["runtime.compile"] == half.params["runtime.compile"]


def test_a_killed_life_may_leave_half_a_line(tmp_path):
    drain(opened(tmp_path), 3)
    journal = tmp_path / files.STUDY_LOG
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    study = opened(tmp_path)
    assert len(study.history()) == 3
    drain(study, 2)
    assert len(opened(tmp_path).history()) == 5
    journal.write_bytes(b"no newline at all")
    cut_torn_line(journal)
    assert journal.read_bytes() == b""


def test_a_grid_walks_every_point_once_through_two_lives(tmp_path):
    space = ["space.quant.block_size=choice(16, 32)", "space.quant.act_bits=choice(4, 8)"]
    words = ["sampler=grid", *space, "enqueue=[]"]
    first = [t.params for t in drain(opened(tmp_path, *words, sweep="smoke"), 3)]
    study = opened(tmp_path, *words, sweep="smoke")
    points = [*first, *(t.params for t in drain(study, 1))]
    assert len({tuple(sorted(point.items())) for point in points}) == 4
    assert study.ask() is None


def test_a_grid_needs_a_finite_space(tmp_path):
    with pytest.raises(ConfigError, match="sampler=grid needs"):
        opened(tmp_path, "sampler=grid", "+space.quant.smoothing=interval(0, 1)")


def test_a_point_can_be_asked_for_by_name(tmp_path):
    study = opened(tmp_path)
    point = study._space.point_of("plan_c")
    asked = study.ask(point)
    assert (asked.params, asked.name) == (point, None)


def test_a_duplicate_gets_the_values_of_its_original_at_once_or_later(tmp_path):
    study = opened(tmp_path, "enqueue=[]")
    original, early, other = study.ask(), study.ask(), study.ask()
    study.duplicate(early.number, original.number)
    assert [asked.number for asked in study.running()] == [original.number, other.number]
    study = opened(tmp_path, "enqueue=[]")
    study.tell(original.number, VALUES, {})
    study.duplicate(other.number, original.number)
    assert [told.values for told in study.history()] == [VALUES] * 3
    assert [told.duplicate_of for told in study.history()] == [
        None,
        original.number,
        original.number,
    ]


def test_objectives_have_their_names_in_optunas_tools(tmp_path):
    assert opened(tmp_path)._study.metric_names == ["success_rate", "episode_time_s"]
    study = opened(tmp_path)
    size = (tmp_path / files.STUDY_LOG).stat().st_size
    assert opened(tmp_path)._study.metric_names == ["success_rate", "episode_time_s"]
    assert (tmp_path / files.STUDY_LOG).stat().st_size == size
    number = study.ask().number
    study.tell(number, VALUES, {})
    study.reopen([number])  # writes the study anew
    assert study._study.metric_names == ["success_rate", "episode_time_s"]


def test_neither_a_duplicate_nor_a_trial_without_episodes_is_among_the_best(tmp_path):
    study = opened(tmp_path, "enqueue=[]")
    original, copy, slow = study.ask(), study.ask(), study.ask()
    study.tell(original.number, (0.5, 2.0), {"outcome": "complete", "episodes": 6})
    study.duplicate(copy.number, original.number)
    study.tell(slow.number, (0.9, 2.0), {"outcome": "stopped", "episodes": 0})
    assert [trial.number for trial in study._study.best_trials] == [original.number]
    states = {trial.number: trial.state.name for trial in study._study.get_trials()}
    assert (states[copy.number], states[slow.number]) == ("PRUNED", "COMPLETE")
    study.reopen([slow.number])
    study.tell(slow.number, (0.9, 2.0), {"outcome": "complete", "episodes": 6})
    assert [trial.number for trial in study._study.best_trials] == [slow.number]


def test_a_changed_space_is_refused_and_the_change_is_named(tmp_path):
    opened(tmp_path)
    with pytest.raises(ConfigError, match=r"quant\.block_size was.*32.*is.*128.*name="):
        opened(tmp_path, "space.quant.block_size=choice(16, 128)")
    with pytest.raises(ConfigError, match=r"base quant\.act_bits was 8, is 4"):
        opened(tmp_path, "quant.act_bits=4")
    with pytest.raises(ConfigError, match="objectives"):
        opened(tmp_path, "objectives=[{name: success_rate}]")


def test_budget_sampler_and_plans_may_change_between_lives(tmp_path):
    drain(opened(tmp_path, "enqueue=[reference]"), 2)
    study = opened(tmp_path, "sampler=random", "budget.trials=99", "enqueue=[plan_a, reference]")
    assert [trial.name for trial in drain(study, 2)] == ["plan_a", None]


def test_a_database_holds_the_study_too(tmp_path):
    url = f"storage.url=sqlite:///{tmp_path}/study.db"
    first = opened(tmp_path / "a", url)
    told = drain(first, 6)
    assert [t.proposed for t in opened(tmp_path / "a", url).history()] == told
    with pytest.raises(ConfigError, match=r"already holds a sweep.*/a; choose another name"):
        opened(tmp_path / "b", url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://me:secret@127.0.0.1:9/none",
        "sqlite:////nowhere/at/all/study.db",
        "nonsense",
        "oracle9://x",
    ],
)
def test_an_unreachable_storage_is_one_message_without_the_password(tmp_path, url):
    with pytest.raises(ConfigError, match=r"cannot open storage\.url") as refused:
        opened(tmp_path, f"storage.url='{url}'")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_second_controller_is_told_who_holds_the_sweep(tmp_path):
    with controller_lock(tmp_path / "s"):
        code = (
            "import sys; from pathlib import Path\n"
            "from duqsweep.control.study.controller_lock import controller_lock\n"
            "with controller_lock(Path(sys.argv[1])): pass"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True
        )
    assert run.returncode == 1
    assert f"in use by another controller: process {os.getpid()} on " in run.stderr
    with controller_lock(tmp_path / "s"):
        assert json.loads((tmp_path / "s" / ".controller").read_text())["pid"] == os.getpid()


def test_a_sweeps_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="cannot write the sweep's folder"),
        controller_lock(tmp_path / "file" / "s"),
    ):
        pass


def test_optuna_reads_the_journal_without_us(tmp_path):
    drain(opened(tmp_path), 5)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / files.STUDY_LOG))
    study = optuna.load_study(
        study_name="dit_speed", storage=optuna.storages.JournalStorage(backend)
    )
    assert len(study.trials) == 5
    assert len(study.best_trials) >= 1


def known(study: OptunaStudy) -> list:
    return [(told.proposed, told.values, told.duplicate_of) for told in study.history()]


@pytest.mark.parametrize("storage", ["", "storage.url=sqlite:///{}/study.db"])
def test_reopened_trials_are_not_told_and_all_others_stay_as_they_were(tmp_path, storage):
    words = [storage.format(tmp_path)] if storage else []
    study = opened(tmp_path, *words)
    asked = drain(study, 6)
    copy = study.ask()
    study.duplicate(copy.number, asked[5].number)
    before = known(study)
    study.reopen([asked[1].number, asked[5].number])  # the first lies outside of the space
    kept = [told for told in before if told[0].number not in (1, 5, 6)]
    assert known(study) == kept
    later = opened(tmp_path, *words)
    assert known(later) == kept
    assert later.running() == [asked[1], asked[5]]
    later.tell(1, VALUES, {})
    later.tell(5, VALUES, {})
    values = {told.proposed.number: told.values for told in later.history()}
    assert values[1] == values[5] == values[6] == VALUES
    assert later.ask().number == 7


@pytest.mark.parametrize("step", ["create_study", "delete_study", "load_study"])
def test_a_study_survives_a_kill_at_any_step_of_its_rewriting(tmp_path, monkeypatch, step):
    study = opened(tmp_path)
    drain(study, 5)
    before = known(study)
    for call in range(1, 4):
        with monkeypatch.context() as patch:
            patch.setattr(optuna, step, killed_at(call, getattr(optuna, step)))
            with suppress(KeyboardInterrupt):
                study.reopen([4])
        study = opened(tmp_path)
        assert known(study) in (before, before[:4])
        assert [trial.number for trial in study.running()] in ([], [4])
    assert len({trial.number for trial in study._study.trials}) == 5


def killed_at(call: int, original):
    calls = itertools.count(1)

    def patched(*args, **kwargs):
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    return patched
