"""Fronts by what a search's model believes, where it has written that."""

from __future__ import annotations

import math

import pytest
from synthetic_sweep import (
    OBJECTIVES,
    make_episodes,
    make_result,
    make_trial,
    make_vitals,
    write_trial,
)

from duqsweep.control.front.beliefs import Belief, Beliefs, read_beliefs, write_beliefs
from duqsweep.control.front.content import FrontBuilder, compute_front
from duqsweep.control.front.records import Front
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    """A lucky trial of four episodes, and a faster one that is known well."""
    for number, speedup, count, rate in ((0, 1.5, 4, 1.1), (1, 2.0, 100, 0.9)):
        trial = make_trial(number)
        episodes = make_episodes(number, count, rate)
        write_trial(tmp_path, trial, make_vitals(trial, speedup), episodes, make_result(episodes))
    ensure_reference(tmp_path, read_trials(tmp_path))
    return tmp_path


def test_a_lucky_trial_is_on_the_front_of_raw_rates_only(folder):
    builder = FrontBuilder(folder, OBJECTIVES)
    views = read_trials(folder)
    raw = builder.build(views)
    assert [point.on_front for point in raw.points] == [True, True]
    assert [point.success_mean for point in raw.points] == [None, None]
    beliefs = Beliefs({"0": Belief(0.85, 0.08, 0.3), "1": Belief(0.90, 0.03, 0.9)})
    write_beliefs(folder, beliefs)
    believed = builder.build(views)
    assert [point.on_front for point in believed.points] == [False, True]
    assert [point.success_mean for point in believed.points] == [0.85, 0.9]
    assert believed.points[0].success.success_rate == 1.0  # the raw rate stays beside it
    assert [point.p_front for point in believed.points] == [0.3, 0.9]
    assert believed == compute_front(folder, OBJECTIVES)
    assert Front.from_json(believed.to_json()) == believed


def test_a_time_without_the_noise_of_its_measure_places_a_trial(folder):
    """Trial 1 was measured as the faster one; the model says that its clock was lucky."""
    builder, views = FrontBuilder(folder, OBJECTIVES), read_trials(folder)
    times = [point.measures["episode_time_s"] for point in builder.build(views).points]
    assert times[1] < times[0]
    for slower, on_front in ((0.9, [False, True]), (1.1, [True, False])):
        logs = (math.log(times[0]), math.log(times[0] * slower))
        rates = (0.90, 0.85) if slower > 1 else (0.85, 0.90)
        write_beliefs(
            folder,
            Beliefs({str(i): Belief(rates[i], 0.03, 0.5, (logs[i],)) for i in range(2)}),
        )
        found = builder.build(views)
        assert [point.on_front for point in found.points] == on_front
        assert [point.measures["episode_time_s"] for point in found.points] == times


def test_beliefs_are_read_as_they_were_written_and_rewritten_only_when_they_change(folder):
    assert read_beliefs(folder) == Beliefs({})
    beliefs = Beliefs({"3": Belief(0.5, 0.1)})
    write_beliefs(folder, beliefs)
    assert read_beliefs(folder) == beliefs
    before = (folder / "posterior.json").stat().st_mtime_ns
    write_beliefs(folder, beliefs)
    assert (folder / "posterior.json").stat().st_mtime_ns == before


def test_beliefs_of_another_version_are_named(folder):
    (folder / "posterior.json").write_text('{"3": {"mean": 0.5, "sd": 0.1}}')
    with pytest.raises(ConfigError, match=r"posterior.json is of another version.*delete it"):
        read_beliefs(folder)
