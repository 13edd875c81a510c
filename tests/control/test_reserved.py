"""What `confirm` found: the state of each point, and everybody who goes by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_sweep import (
    OBJECTIVES,
    make_episodes,
    make_result,
    make_trial,
    make_vitals,
    write_trial,
)

from duqsweep import files
from duqsweep.control.confirmation import confirmation
from duqsweep.control.export import pick, remarks
from duqsweep.control.front.content import FrontBuilder, compute_front
from duqsweep.control.front.intervals import wilson
from duqsweep.control.front.pairs import Pairs, loss_above, score
from duqsweep.control.front.records import Front
from duqsweep.control.front.reserved import CONFIRM_DIR, CONFIRM_JSON, read_confirmation
from duqsweep.control.report.page import report_page
from duqsweep.control.report.report import front_csv
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.control.view.evidence import evidence
from duqsweep.control.view.headline import headline, verdict_line
from duqsweep.errors import ConfigError

LOST = range(11)  # reserved episodes that the lucky trial loses and the reference solves


def write_walk(folder: Path, number: int, speedup: float, lost: set[int], count: int = 60) -> None:
    """A trial that solves all episodes but those that it loses."""
    trial = make_trial(number, name="reference" if number == 0 else None)
    episodes = [
        replace(episode, success=episode.i not in lost)
        for episode in make_episodes(number, count, 0.9)
    ]
    write_trial(folder, trial, make_vitals(trial, speedup), episodes, make_result(episodes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The issue's example: the fastest loses 11 of 60 reserved episodes and wins none."""
    sweep = tmp_path / "sweep"
    for number, speedup, lost in ((0, 1.0, {3}), (1, 2.0, {3, 4}), (2, 3.0, {3, 4, 5})):
        write_walk(sweep, number, speedup, lost)
    ensure_reference(sweep, read_trials(sweep))
    return sweep


def confirm(sweep: Path, lost: dict[int, set[int]], count: int = 60) -> None:
    reserved = sweep / CONFIRM_DIR
    for number, missed in lost.items():
        write_walk(reserved, number, 1.0, missed, count)
    found = confirmation(reserved, reference=0)
    files.write_json(reserved / CONFIRM_JSON, found.to_json())


def states(front: Front) -> dict[int, str]:
    return {point.trial: point.state for point in front.points}


def test_a_point_is_unconfirmed_until_reserved_states_decide(folder):
    builder = FrontBuilder(folder, OBJECTIVES)
    views = read_trials(folder)
    before = builder.build(views)
    assert states(before) == {0: "unconfirmed", 1: "unconfirmed", 2: "unconfirmed"}
    assert (before.verdict.trial, before.points[2].reserved) == (None, None)
    confirm(folder, {0: set(), 1: set(), 2: set(LOST)}, count=150)
    front = builder.build(views)
    assert states(front) == {0: "confirmed", 1: "confirmed", 2: "unconfirmed"}
    found = front.points[2].reserved
    assert (found.common_episodes, found.wins, found.losses) == (150, 0, 11)
    assert found.loss_low < 0.05 < found.loss_high
    assert front == compute_front(folder, OBJECTIVES)
    assert Front.from_json(front.to_json()) == front


def test_the_verdict_advises_no_confirmation_that_was_made(folder):
    builder = FrontBuilder(folder, OBJECTIVES)
    views = read_trials(folder)
    advice = "confirm DIR --trials 2 tests it"
    assert advice in verdict_line(builder.build(views))
    confirm(folder, {0: set(), 1: set(), 2: set(LOST)}, count=150)
    known = verdict_line(builder.build(views))
    assert "common episodes would decide on trial 2, " in known
    assert advice not in known


def test_eleven_lost_of_sixty_and_none_won_are_refuted_and_nobody_takes_the_point(folder):
    confirm(folder, {0: set(), 1: {5}, 2: set(LOST)})
    front = compute_front(folder, OBJECTIVES)
    assert states(front) == {0: "unconfirmed", 1: "unconfirmed", 2: "refuted"}
    refuted = front.points[2]
    assert refuted.on_front
    assert refuted.reserved.p_value == pytest.approx(2 / 2**11)
    assert refuted.reserved.loss_low > 0.05
    assert headline(front).startswith("Trial 1 ")
    assert front.verdict.next_trial == 1
    assert pick(front, "fastest@success>=0.8") == 1
    assert pick(front, "fastest@success>=0.6") == 2  # that is what was asked for, with a remark
    assert pick(front, "knee") != 2
    assert "REFUTED: on reserved states it loses 18.3 points" in remarks(front, 2)[0]
    assert "unconfirmed: `confirm` could not decide" in remarks(front, 1)[0]
    rows = {row[0]: row for row in evidence(front)}
    assert rows["2"][-1] == "refuted"
    assert rows["2"][2] != rows["2"][3]
    page = report_page(front, read_trials(folder), "<svg></svg>")
    assert "What is known of their success" in page
    assert page.count("refuted") > 1
    assert "refuted" in front_csv(front)


def test_nothing_is_picked_where_everything_is_refuted(folder):
    confirm(folder, {0: set(), 1: set(LOST), 2: set(LOST)})
    front = compute_front(folder, OBJECTIVES)
    points = tuple(point for point in front.points if point.trial)
    with pytest.raises(ConfigError, match="refuted all 2 points of the front; --trial N"):
        pick(replace(front, points=points), "knee")


def test_a_point_is_picked_by_the_lower_end_of_its_interval(folder):
    front = compute_front(folder, OBJECTIVES)
    low = wilson(57, 60)[0]  # 95 % raw
    assert pick(front, f"fastest@success>={low - 0.001:.4f}") == 2
    assert pick(front, f"fastest@success>={low + 0.001:.4f}") == 1
    with pytest.raises(ConfigError, match="by the lower end of its interval the best, trial 0, ha"):
        pick(front, "fastest@success>=0.96")
    assert "at least 86.3 % of episodes (Wilson, 95 %); unconfirmed" in remarks(front, 2)[0]
    confirm(folder, {0: set(), 2: {1, 2, 3}})
    confirmed = compute_front(folder, OBJECTIVES)
    exact = confirmed.points[2].reserved.success.success_low
    assert f"at least {100 * exact:.1f} % of episodes (exact, on res" in remarks(confirmed, 2)[0]


def test_a_refuted_trial_is_no_verdict_and_hides_no_other(folder):
    for number, speedup in ((0, 1.0), (1, 2.0), (2, 3.0)):
        write_walk(folder, number, speedup, set(), count=150)
    front = compute_front(folder, OBJECTIVES)
    assert front.verdict.trial == 2
    assert not front.points[1].on_front
    confirm(folder, {0: set(), 2: set(LOST)})
    assert compute_front(folder, OBJECTIVES).verdict.trial == 1


def test_without_the_reference_nothing_is_decided(folder):
    reserved = folder / CONFIRM_DIR
    write_walk(reserved, 2, 1.0, set())
    found = confirmation(reserved, reference=None)
    files.write_json(reserved / CONFIRM_JSON, found.to_json())
    point = compute_front(folder, OBJECTIVES).points[2]
    assert (point.state, point.reserved.loss) == ("unconfirmed", None)


def test_a_file_of_an_earlier_version_decides_nothing_and_a_torn_one_is_named(folder):
    confirm(folder, {0: set(), 2: set(LOST)})
    path = folder / CONFIRM_DIR / CONFIRM_JSON
    content = files.read_json(path)
    for point in content["points"]:
        del point["common_episodes"]
    files.write_json(path, content)
    assert compute_front(folder, OBJECTIVES).points[2].state == "unconfirmed"
    files.write_text(path, '{"points": ')
    with pytest.raises(ConfigError, match=r"confirm.json is no confirmation.*delete it"):
        read_confirmation(folder)


@pytest.mark.parametrize("pairs", [Pairs(60, 0, 11), Pairs(44, 2, 12), Pairs(60, 3, 4)])
def test_the_lower_bound_of_a_loss_is_where_the_score_is_that_many_errors_above(pairs):
    low = loss_above(pairs, 1.8)
    assert low < pairs.loss
    if low > 0:
        assert score(pairs, low) == pytest.approx(1.8, abs=1e-6)
    else:  # a possible gain: the same test with the trials exchanged
        swapped = Pairs(pairs.episodes, pairs.losses, pairs.wins)
        assert score(swapped, -low) == pytest.approx(-1.8, abs=1e-6)
