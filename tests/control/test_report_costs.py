"""What the report says of the search: episodes saved, and which settings matter."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_sweep import OBJECTIVES, write_sweep

from duqsweep.control.front.content import compute_front
from duqsweep.control.front.importance import Importance
from duqsweep.control.front.measures import EPISODE_TIME_S, SUCCESS_RATE
from duqsweep.control.front.records import Front
from duqsweep.control.report.associations import LEAST_TRIALS, associations
from duqsweep.control.report.costs import episodes_line, growth_picture, settings_that_matter
from duqsweep.control.trials.reader import TrialView, read_trials


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("made") / "dit_speed", episodes=18)


@pytest.fixture(scope="module")
def views(folder: Path) -> list[TrialView]:
    return read_trials(folder)


@pytest.fixture(scope="module")
def front(folder: Path, views: list[TrialView]) -> Front:
    return compute_front(folder, OBJECTIVES, views)


def test_the_settings_that_were_made_to_matter_come_first(front: Front) -> None:
    of_success = associations(front, SUCCESS_RATE)
    assert next(iter(of_success)) == "quant.weight_bits.default"
    assert next(iter(associations(front, EPISODE_TIME_S))) == "policy.num_steps"
    assert all(0 <= share <= 1 for share in of_success.values())


def test_a_setting_without_effect_has_a_share_near_nothing(front: Front) -> None:
    draw = random.Random(1)
    base = [point for point in front.points if point.outcome == "complete"]
    shares = []
    for _ in range(40):
        points = [replace(p, params={"idle": draw.choice("abc")}) for p in base]
        found = associations(replace(front, points=tuple(points)), SUCCESS_RATE)
        shares.append(found["idle"])
    assert sum(shares) / len(shares) < 0.08


def test_few_trials_say_nothing(front: Front) -> None:
    few = replace(front, points=front.points[: LEAST_TRIALS - 1])
    assert associations(few, SUCCESS_RATE) == {}
    assert settings_that_matter(few) == ""


def test_the_models_importances_are_shown_where_the_front_has_them(front: Front) -> None:
    known = replace(front, importances=(Importance("policy.num_steps", 0.4, 0.2, 0.6),))
    table = settings_that_matter(known)
    assert "40 % (20–60 %)" in table
    assert table.count("90 % interval") == 1
    assert "success rate: importance" in table
    assert f"{EPISODE_TIME_S.label}: association" in table
    assert "success rate: association" in settings_that_matter(front)
    assert "90 % interval" not in settings_that_matter(front)


def test_episodes_are_compared_with_a_fixed_number(views: list[TrialView]) -> None:
    line = episodes_line(views, {"episodes_per_trial": 18})
    played = sum(len(view.episodes) for view in views)
    full = 18 * sum(view.outcome != "failed" for view in views)
    assert f"{played:,} episodes were played" in line
    assert f"would be {full:,}: {full - played:,} were saved" in line
    assert episodes_line(views, {}) == ""


def test_the_hypervolume_grows_to_that_of_the_front(front: Front, views: list[TrialView]) -> None:
    ended = [view for view in views if view.result is not None]
    picture = growth_picture(front, ended)
    assert f"hypervolume {front.hypervolume:.4g} after {len(ended)} trials" in picture
    assert growth_picture(front, []) == ""
