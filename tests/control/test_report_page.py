"""The report in a real browser: sizes, keyboard, filters, 1,000 trials, hostile texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from browser import examine
from synthetic_sweep import OBJECTIVES, write_sweep

from duqsweep.control.front.content import compute_front
from duqsweep.control.front.records import Front
from duqsweep.control.report import picture
from duqsweep.control.report.page import report_page
from duqsweep.control.report.surroundings import Surroundings
from duqsweep.control.trials.reader import TrialView, read_trials

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EVIL = "</script><script>window.evil = 1</script><img src=x onerror='evil = 1'><!--<script>"
TASKS = ["pick up the red cube", EVIL, *(f"task number {i}" for i in range(2, 6))]
VIDEO = "videos/trial_0008_episode_0001.mp4"
CHECKS = """
const doc = (name) => frames[name].document;
const marks = (name) => [...doc(name).querySelectorAll(".mark[data-trial]")];
const panel = (name) => doc(name).querySelector(".panel");
const rows = (name) => [...doc(name).querySelectorAll("#every-trial tr[data-trial]")];
const visible = (name) => rows(name).filter((row) => !row.hidden).length;
const press = (frame, key) => frame.document.activeElement.dispatchEvent(
  new frame.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const set = (frame, control, value) => {
  control.value = value;
  control.dispatchEvent(new frame.Event("change", { bubbles: true }));
};

for (const name of Object.keys(frames)) {
  const root = doc(name).documentElement;
  found[name] = { wide: root.scrollWidth - root.clientWidth, ms: loaded_ms[name],
    marks: marks(name).length, rows: rows(name).length, evil: frames[name].evil ?? 0,
    still: doc(name).querySelector("figure.still").offsetHeight };
}
found.scrolling = [...doc("wide").querySelectorAll("div.scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth)
  .map((box) => box.closest("section").querySelector("h2").textContent);

const wide = frames.wide;
const opened = marks("wide").find((mark) => mark.dataset.trial === "8");
opened.dispatchEvent(new wide.MouseEvent("click", { bubbles: true }));
found.panel = panel("wide").innerText;
found.video = panel("wide").querySelector("video").getAttribute("src");
found.heat = panel("wide").querySelectorAll(".bits rect").length;

found.intervals = doc("wide").querySelectorAll(".interval").length;
const reachable = marks("wide").filter((mark) => mark.getAttribute("tabindex") === "0");
found.reachable = reachable.length;
reachable[0].focus();
found.hovered = doc("wide").querySelectorAll(".interval.near").length;
found.tip = doc("wide").querySelector(".tip").textContent;
const start = doc("wide").activeElement.dataset.trial;
press(wide, "ArrowRight");
found.moved = start !== doc("wide").activeElement.dataset.trial;
const label = doc("wide").activeElement.getAttribute("aria-label");
press(wide, "Enter");
found.opened = label.startsWith(`trial ${panel("wide").querySelector("h2").textContent.slice(6)}:`);
found.focused = doc("wide").activeElement.className;
press(wide, "Escape");
found.closed = [panel("wide").hidden,
  doc("wide").activeElement.getAttribute("aria-label") === label];

const [kernel, outcome, plan] = doc("wide").querySelectorAll(".filters select");
const [from, to] = doc("wide").querySelectorAll(".filters input");
set(wide, kernel, "loop");
found.loop = [visible("wide"), marks("wide").length];
doc("wide").querySelector(".filters button").click();
set(wide, outcome, "failed");
found.failed = visible("wide");
set(wide, outcome, "");
set(wide, plan, "plan_a");
found.plan_a = [visible("wide"), doc("wide").querySelector("output").textContent];
doc("wide").querySelector(".filters button").click();

const svg = doc("wide").querySelector(".chart svg");
const box = svg.getBoundingClientRect();
const point = (type, share, target) => target.dispatchEvent(new wide.PointerEvent(type, {
  clientX: box.left + share * box.width, clientY: box.top + 100, bubbles: true }));
point("pointerdown", 0.2, svg);
point("pointermove", 0.4, wide);
point("pointerup", 0.4, wide);
found.brushed = [visible("wide"), Number(from.value) < Number(to.value)];
svg.dispatchEvent(new wide.MouseEvent("dblclick", { bubbles: true }));
found.reset = visible("wide");

const heads = [...doc("wide").querySelectorAll("#every-trial th button")];
const time = heads.findIndex((button) => button.textContent === "time");
heads[time].click();
found.sorted = rows("wide").map((row) => row.cells[time].dataset.sort ?? "");
found.stages = ["8", "2"].map((number) => {
  marks("wide").find((mark) => mark.dataset.trial === number)
    .dispatchEvent(new wide.MouseEvent("click", { bubbles: true }));
  return [...panel("wide").querySelectorAll("dt.stage")]
    .map((name) => `${name.innerText} ${name.nextSibling.innerText}`);
});
found.roles = [...doc("wide").querySelectorAll(".chart svg, .mark[data-trial], .panel")]
  .every((node) => node.getAttribute("aria-label"));
"""


def hostile(front: Front) -> Front:
    """The same front with markup in names, reasons and settings."""
    points = [
        replace(point, reason=EVIL, params=point.params | {"quant.include": EVIL})
        for point in front.points
    ]
    points[9] = replace(points[9], name=EVIL)
    return replace(front, sweep=EVIL, points=tuple(points))


def many(front: Front, views: list[TrialView], count: int) -> tuple[Front, list[TrialView]]:
    """A front of `count` trials with the points of another one."""
    by_number = {view.number: view for view in views}
    points, copies = [], []
    for number in range(count):
        point = front.points[number % len(front.points)]
        view = by_number[point.trial]
        points.append(
            replace(point, trial=number, on_front=number < len(front.points) and point.on_front)
        )
        copies.append(replace(view, trial=replace(view.trial, number=number)))
    return replace(front, points=tuple(points)), copies


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pages")
    sweep_dir = write_sweep(folder / "dit_speed", episodes=18)
    views = read_trials(sweep_dir)
    front = compute_front(sweep_dir, OBJECTIVES, views)
    around = Surroundings("", TASKS, [VIDEO], "sweeps/dit_speed")
    still = picture.draw_svg(front)
    crowd = many(front, views, 1000)
    contents = {
        "plain": report_page(front, views, still, around),
        "evil": report_page(hostile(front), views, still, around),
        "many": report_page(*crowd, picture.draw_svg(crowd[0]), around),
    }
    pages = {name: folder / f"{name}.html" for name in contents}
    for name, text in contents.items():
        pages[name].write_text(text)
    frames = {
        "many": (pages["many"], 1400),
        "wide": (pages["plain"], 1400),
        "narrow": (pages["plain"], 390),
        "evil": (pages["evil"], 1400),
        "evil_narrow": (pages["evil"], 390),
    }
    result = examine(folder / "harness.html", frames, CHECKS)
    assert "error" not in result, result["error"]
    return result


def test_no_page_scrolls_sideways_and_no_table_at_1400_pixels(found: Any) -> None:
    frames = ("wide", "narrow", "many", "evil", "evil_narrow")
    assert {name: found[name]["wide"] for name in frames} == dict.fromkeys(frames, 0)
    assert found["scrolling"] == []


def test_a_thousand_trials_are_there_within_two_seconds(found: Any) -> None:
    assert found["many"]["rows"] == 1000
    assert found["many"]["marks"] > 900
    assert found["many"]["ms"] < 2000


def test_the_script_draws_in_place_of_the_still_picture(found: Any) -> None:
    assert found["wide"]["still"] == 0
    assert found["wide"]["marks"] > 25


def test_a_click_on_a_mark_shows_all_about_its_trial(found: Any) -> None:
    text = found["panel"]
    for words in (
        "Trial 8",
        "pick up the red cube",
        "3 of 3",
        "quant.weight_bits.default",
        "DiT, weights of 6 layers",
        "python -m duqsweep export sweeps/dit_speed --trial 8 --format yaml",
        "python -m duqsweep confirm sweeps/dit_speed --trials 8",
    ):
        assert words in text
    assert found["video"] == VIDEO
    assert found["heat"] == 6


def test_the_panel_tells_the_time_of_rotations_and_rounding_or_that_they_are_fused(
    found: Any,
) -> None:
    clocked, fused = found["stages"]
    assert clocked == ["of these, rotations 1.75 ms", "of these, rounding 1.25 ms"]
    assert fused == ["of these, rotations and rounding fused with other work, not separable"]


def test_intervals_are_those_of_the_front_and_of_the_trial_that_is_looked_at(found: Any) -> None:
    assert 1 <= found["intervals"] < found["wide"]["marks"] / 2
    assert found["hovered"] == 1
    assert found["tip"].startswith("trial ")


def test_the_keyboard_reaches_moves_between_and_opens_trials(found: Any) -> None:
    assert found["reachable"] == 1
    assert found["moved"]
    assert found["opened"]
    assert found["focused"] == "panel"
    assert found["closed"] == [True, True]
    assert found["roles"]


def test_filters_and_the_brush_change_picture_and_table(found: Any) -> None:
    assert found["loop"] == [1, 1]
    assert found["failed"] == 1
    assert found["plan_a"] == [1, "1 of 31 trials"]
    shown, ordered = found["brushed"]
    assert 0 < shown < 31
    assert ordered
    assert found["reset"] == 31


def test_a_heading_sorts_and_trials_without_a_value_come_last(found: Any) -> None:
    times = [float(text) for text in found["sorted"] if text]
    assert times == sorted(times)
    assert len(times) > 25
    assert found["sorted"][-1] == ""


def test_markup_in_names_reasons_settings_and_instructions_is_text(found: Any) -> None:
    assert found["evil"]["marks"] == found["wide"]["marks"]
    assert found["evil"]["evil"] == 0
