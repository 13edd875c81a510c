"""The files and tables that a sweep leaves for people."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from synthetic_sweep import OBJECTIVES, write_sweep

from duqsweep import files
from duqsweep.control.front import formats
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.measures import EPISODE_TIME_S
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.records import Front
from duqsweep.control.front.verdict import Verdict
from duqsweep.control.report import picture
from duqsweep.control.report.data import report_data
from duqsweep.control.report.labels import Box, place_labels
from duqsweep.control.report.report import front_csv, print_front, write_report
from duqsweep.control.report.surroundings import Surroundings
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.view import claims, wording
from duqsweep.control.view.headline import headline, verdict_line


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sweep(tmp_path_factory.mktemp("sweeps") / "dit_speed", episodes=18)
    views = read_trials(folder)
    write_report(folder, compute_front(folder, OBJECTIVES, views), views)
    return folder


@pytest.fixture(scope="module")
def front(sweep_dir: Path) -> Front:
    return compute_front(sweep_dir, OBJECTIVES)


def printed(front: Front) -> str:
    stream = io.StringIO()
    print_front(front, Console(file=stream, width=200))
    return stream.getvalue()


def test_every_report_file_is_written_and_nothing_temporary_stays(sweep_dir: Path) -> None:
    assert {path.name for path in sweep_dir.iterdir() if path.is_file()} == {
        *files.REPORT_FILES,
        files.SWEEP_YAML,
        files.REFERENCE_JSON,
        files.IDENTITY_JSON,
    }


def test_front_json_is_the_content_itself(sweep_dir: Path, front: Front) -> None:
    assert json.loads((sweep_dir / files.FRONT_JSON).read_text()) == front.to_json()


def test_csv_has_a_row_a_trial_and_a_column_a_parameter(front: Front) -> None:
    rows = list(csv.DictReader(io.StringIO(front_csv(front))))
    assert [int(row["trial"]) for row in rows] == [point.trial for point in front.points]
    assert rows[9]["quant.block_size"] == str(front.points[9].params["quant.block_size"])
    assert rows[9]["on_front"] == str(front.points[9].on_front)


def test_csv_of_an_empty_sweep_is_one_empty_line(tmp_path: Path) -> None:
    assert front_csv(compute_front(tmp_path, OBJECTIVES)).strip() == ""


def test_png_is_1600_by_1000_pixels(sweep_dir: Path) -> None:
    data = (sweep_dir / files.FRONT_PNG).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1600, 1000)


def test_svg_names_every_drawn_trial_in_a_tooltip(front: Front) -> None:
    root = ElementTree.fromstring(picture.draw_svg(front))
    names = {"svg": "http://www.w3.org/2000/svg"}
    for point in front.points:
        mark = root.find(f".//svg:g[@id='trial-{point.trial}']", names)
        if point.success.success_rate is None or point.value(EPISODE_TIME_S) is None:
            assert mark is None
            continue
        assert mark is not None
        title = mark.find("svg:title", names)
        assert title is not None
        assert (title.text or "").startswith(f"trial {wording.point_label(point)}: ")


def test_equal_content_gives_equal_pictures(front: Front) -> None:
    assert picture.draw_svg(front) == picture.draw(front).svg


@pytest.mark.parametrize(
    "objectives",
    [
        [Objective("success_rate", "maximize")],
        [Objective("success_rate", "maximize"), Objective("weights_mb", "minimize")],
        [Objective("weights_mb", "minimize"), Objective("success_rate", "maximize")],
        [*OBJECTIVES, Objective("action_error", "minimize")],
    ],
)
def test_any_objectives_can_be_drawn_and_printed(
    sweep_dir: Path, objectives: list[Objective]
) -> None:
    front = compute_front(sweep_dir, objectives)
    assert picture.draw_svg(front).startswith("<svg")
    assert "front of dit_speed" in printed(front)


def test_an_empty_sweep_can_be_drawn_and_printed(tmp_path: Path) -> None:
    front = compute_front(tmp_path, OBJECTIVES)
    assert picture.draw_svg(front).startswith("<svg")
    assert "no trial on the front yet" in printed(front)


def test_page_needs_nothing_from_elsewhere(sweep_dir: Path) -> None:
    page = (sweep_dir / files.REPORT_HTML).read_text()
    for reference in (' src="', "<link", "@import", 'href="http', "url(http"):
        assert reference not in page
    assert page.count("<svg") == 2  # the front, and how it grew


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (
            None,
            "Verdict: none yet. No trial is shown to lose at most 5 points of success, with 95 %",
        ),
        (1, "over 160 common episodes it loses 1 points, and a loss of 4.2 or more is excluded."),
    ],
)
def test_the_verdict_is_on_the_terminal_and_the_page(
    trial: int | None, words: str, sweep_dir: Path, front: Front, tmp_path: Path
) -> None:
    found = None if trial is None else 0.01
    judged = Verdict(0.05, 0.95, 0, 2, trial, found, found and 0.042, 160, 2, 240)
    judged_front = replace(front, verdict=judged)
    text = io.StringIO()
    print_front(judged_front, Console(file=text, width=500))
    assert words in text.getvalue()
    assert "About 240 common episodes would decide on trial 2" in text.getvalue()
    write_report(tmp_path, judged_front, read_trials(sweep_dir))
    assert words in (tmp_path / files.REPORT_HTML).read_text()


def test_what_confirm_found_goes_before_what_the_search_shows(front: Front) -> None:
    undecided = Verdict(0.05, 0.95, 0, 2, None, None, None, None, 2, 240)
    timed = sorted(
        (time, point.trial)
        for point in front.points
        if point.name is None and (time := point.value(EPISODE_TIME_S)) is not None
    )
    (_, fast), (_, slow) = timed[0], timed[-1]

    def line(states: dict[int, str], verdict: Verdict) -> str:
        points = [replace(p, state=states.get(p.trial, "unconfirmed")) for p in front.points]
        return verdict_line(replace(front, points=tuple(points), verdict=verdict)) or ""

    open_slow = replace(undecided, next_trial=slow)
    assert f"confirm DIR --trials {slow} " in line({}, open_slow)
    known = line({fast: "confirmed"}, open_slow)
    assert known.startswith(f"Verdict: trial {fast} is the fastest that is confirmed: ")
    assert "would decide" not in known  # on a slower one
    both = line({slow: "confirmed"}, replace(undecided, next_trial=fast))
    assert both.startswith(f"Verdict: trial {slow} is the fastest that is confirmed: ")
    assert f"would decide on trial {fast}, " in both
    faster = replace(undecided, trial=fast, loss=0.0, loss_high=0.03, episodes=90, next_trial=None)
    points = [replace(p, state="confirmed" if p.trial == slow else p.state) for p in front.points]
    shown = report_data(replace(front, points=tuple(points)), [], Surroundings(folder="DIR"), [])
    assert shown["first"] == slow
    passed = line({slow: "confirmed"}, faster)
    assert passed.startswith(f"Verdict: trial {fast} is the fastest that loses")


def test_page_shows_the_videos_that_lie_beside_it(
    sweep_dir: Path, front: Front, tmp_path: Path
) -> None:
    shutil.copytree(sweep_dir, tmp_path / "with")
    (tmp_path / "with" / files.VIDEOS_DIR).mkdir()
    (tmp_path / "with" / files.VIDEOS_DIR / "trial_0003_episode_0001.mp4").write_bytes(b"film")
    write_report(tmp_path / "with", front, read_trials(sweep_dir))
    page = (tmp_path / "with" / files.REPORT_HTML).read_text()
    assert 'src="videos/trial_0003_episode_0001.mp4"' in page
    assert "trial 3 plan_b, episode 1, " in page
    assert "<video" not in (sweep_dir / files.REPORT_HTML).read_text()


def test_page_escapes_what_trials_say(sweep_dir: Path, front: Front) -> None:
    from duqsweep.control.report.page import report_page

    point = next(point for point in front.points if point.outcome == "failed")
    evil = replace(front, points=(replace(point, reason="<script>alert(1)</script>"),))
    page = report_page(evil, read_trials(sweep_dir), picture.draw_svg(evil))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_terminal_says_what_fake_quantization_means_and_why_trials_failed(
    front: Front,
) -> None:
    text = printed(front)
    assert "simulated quantization: fewer bits do not change the time" in text
    assert "EvaluationError: block_size 64 does not fit" in text
    assert "29 complete · 1 stopped · 1 failed · 1 running" in text


def test_settings_that_never_vary_are_not_shown(front: Front) -> None:
    params = front.points[8].params
    assert params["quant.include"] == "dit_mlp"
    assert set(wording.telling_params(params, front)) == {
        "w_bits",
        "num_steps",
        "compile",
        "block_size",
    }


def test_short_names_that_collide_stay_long() -> None:
    params = {"quant.kernel": 1, "runtime.kernel": 2, "quant.weight_bits.layers.3": 8}
    assert wording.short_params(params) == {
        "quant.kernel": 1,
        "runtime.kernel": 2,
        "w_bits.layers.3": 8,
    }


def test_claims_stand_beside_the_measured_ratio(front: Front) -> None:
    rows = {
        row[0]: dict(zip(claims.HEADER, row, strict=True)) for row in claims.compare_claims(front)
    }
    assert list(rows) == [claim.plan for claim in claims.CLAIMS]
    assert rows["plan_c"]["claimed speed-up"] == "40–80×"
    assert rows["plan_c"]["measured speed-up"] == "24×"  # 0.95 / 0.04
    assert rows["seed_current"]["measured loss"].startswith("+0.0 ±")


@pytest.mark.parametrize("missing", [claims.BASELINE, "plan_d"])
def test_claims_are_silent_unless_the_sweep_has_all_plans(front: Front, missing: str) -> None:
    others = tuple(point for point in front.points if point.name != missing)
    assert claims.compare_claims(replace(front, points=others)) == []


def test_headline_names_the_fastest_trial_that_is_as_good_as_the_reference(
    front: Front,
) -> None:
    points = front.to_json()["points"]
    rate = points[0]["success_rate"]
    as_good = [p for p in points if p["on_front"] and p["success_high"] >= rate]
    fastest = min(as_good, key=lambda point: point["episode_time_s"])
    assert headline(front).startswith(f"Trial {fastest['trial']} is the fastest whose success")


coordinates = st.floats(0, 400, allow_nan=False)


@given(st.lists(st.tuples(coordinates, coordinates), max_size=12))
def test_placed_labels_overlap_neither_each_other_nor_the_edge(
    anchors: list[tuple[float, float]],
) -> None:
    area = Box(0, 0, 400, 400)
    forms = [(90.0, 12.0), (30.0, 12.0)]
    places = place_labels(anchors, [forms] * len(anchors), anchors, 6.0, area)
    placed = [place.box for place in places if place is not None]
    for i, place in enumerate(placed):
        assert place.inside(area)
        assert not any(place.overlaps(other) for other in placed[:i])
        assert not any(place.x0 < x < place.x1 and place.y0 < y < place.y1 for x, y in anchors)


def test_a_label_lies_on_the_fronts_line_only_where_no_other_side_is_free() -> None:
    size, area = [(30.0, 12.0)], Box(0, 0, 200, 200)
    above = Box(0, 106, 200, 108)
    (place,) = place_labels([(100.0, 100.0)], [size], [(100.0, 100.0)], 6.0, area, [above])
    assert place is not None
    assert not place.box.overlaps(above)
    everywhere = Box(0, 0, 200, 200)
    (place,) = place_labels([(100.0, 100.0)], [size], [(100.0, 100.0)], 6.0, area, [everywhere])
    assert place is not None


def test_a_label_without_room_for_its_name_is_a_number() -> None:
    forms = [(150.0, 12.0), (20.0, 12.0)]
    (wide,) = place_labels([(100.0, 100.0)], [forms], [(100.0, 100.0)], 6.0, Box(0, 0, 400, 200))
    assert wide is not None
    assert wide.form == 0
    (narrow,) = place_labels([(100.0, 100.0)], [forms], [(100.0, 100.0)], 6.0, Box(40, 0, 160, 200))
    assert narrow is not None
    assert narrow.form == 1
    nowhere = place_labels([(100.0, 100.0)], [forms], [(100.0, 100.0)], 6.0, Box(95, 0, 105, 200))
    assert nowhere == [None]


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(3.4, "3 s"), (59.6, "1 min 00 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 05 min")],
)
def test_durations_read_like_a_person_says_them(time_s: float, text: str) -> None:
    assert formats.duration(time_s) == text


def test_the_axis_of_success_begins_at_the_lowest_bound_that_is_drawn(front: Front) -> None:
    good = replace(
        front, points=tuple(p for p in front.points if (p.success.success_rate or 0) > 0.7)
    )
    lowest = min(p.success.success_low or 0.0 for p in good.points if p.on_front)
    assert 0.4 < lowest < 0.7
    shown = [int(text) for text in re.findall(r">(\d+)%</text>", picture.draw_svg(good))]
    assert min(shown) >= 100 * (lowest - 0.05)
    assert max(shown) == 100
