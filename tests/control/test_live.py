"""What a user sees while a sweep runs: lines in a log, a live table on a terminal."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_sweep import (
    OBJECTIVES,
    make_episodes,
    make_result,
    make_trial,
    make_vitals,
    write_sweep,
)

from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch.simulators import simulator_hint
from duqsweep.control.front.content import compute_front
from duqsweep.control.view import wording
from duqsweep.control.view.live import (
    EventLines,
    LiveTable,
    NullProgress,
    Plan,
    Progress,
    open_progress,
)
from duqsweep.result import Throughput, TrialResult

PLAN = Plan("dit_speed", trials=4, episodes_per_trial=10)
CRASH = TrialResult("failed", "out of memory", 3, 1, 0, 1 / 3, "OutOfMemory")
TRIAL = make_trial(2, 4, 5)
VITALS = make_vitals(TRIAL, 2.0)


def tell_everything(progress: Progress) -> None:
    """Report every kind of event once, as the loop does."""
    progress.started(TRIAL)
    progress.vitals(2, VITALS)
    progress.progressed(2, 4, 3)
    progress.tick()
    progress.message("trial 1 still runs: re-attached")
    progress.ended(2, make_result(make_episodes(2, 10, 1.0)))
    progress.started(make_trial(3))
    progress.ended(3, CRASH)


def test_away_from_a_terminal_every_event_is_one_line() -> None:
    stream = io.StringIO()
    with open_progress(PLAN, stream) as progress:
        tell_everything(progress)
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines()]
    assert lines[0].startswith("trial 2 started: include=dit_mlp w_bits=4 num_steps=5")
    assert lines[1].startswith(
        "trial 2 measured: a call 2.00× the reference (20.5 and 41 ms on its node), 6 layers"
    )
    assert lines[2] == "trial 1 still runs: re-attached"
    assert lines[3] == "trial 2 complete: 10 of 10 episodes succeeded [1/4]"
    assert lines[5] == "trial 3 FAILED: OutOfMemory: out of memory [2/4]"
    assert "\x1b" not in stream.getvalue()


def test_front_is_a_line_only_when_it_changes(tmp_path: Path) -> None:
    front = compute_front(write_sweep(tmp_path / "dit_speed", episodes=6), OBJECTIVES)
    stream = io.StringIO()
    with open_progress(PLAN, stream) as progress:
        progress.front(front)
        progress.front(front)
    assert stream.getvalue().count("front:") == 1


def test_table_shows_running_trials_counts_and_time_left() -> None:
    now = [100.0]
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=140)
    with LiveTable(PLAN, console, clock=lambda: now[0]) as table:
        tell_everything(table)
        table.started(make_trial(1, name="plan_a"))
        table.progressed(1, 5, 4)
        now[0] = 160.0
        view = Console(file=io.StringIO(), width=140)
        view.print(table.view())
        text = view.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"1 plan_a +5/10 +80.0 % +– +1 min 00 s", text)
    assert "2 of 4 trials · 18 episodes · 7 saved · 1 min 00 s so far" in text
    # Two and a half of four trials took 60 s.
    assert "about 36 s left" in text
    assert "trial 3 FAILED: OutOfMemory: out of memory" in stream.getvalue()


def test_pace_is_in_the_table_and_a_hint_is_given_once() -> None:
    slow = Throughput(7, wall_s=60.0, episodes=30, steps=1, calls=1, policy_s=6.0, sim_s=390.0)
    slurm = LauncherConfig(name="slurm", cpus_per_task=8)
    plan = Plan("dit_speed", 4, 10, hint=partial(simulator_hint, slurm, 2))
    said, shown = io.StringIO(), Console(file=io.StringIO(), width=140)
    with LiveTable(plan, Console(file=said, force_terminal=True, width=140)) as table:
        table.started(TRIAL)
        table.throughput(TRIAL.number, slow)
        table.throughput(TRIAL.number, slow)
        shown.print(table.view())
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "30 episodes per min, 6.5 of 7 simulators busy, policy 10.0 % busy" in text
    hint = "launcher.cpus_per_task=29 lets a job run 28 instead of 7"
    assert said.getvalue().count(hint) == 1
    stream = io.StringIO()
    lines = EventLines(plan, stream)
    lines.throughput(1, slow)
    lines.throughput(1, slow)
    assert stream.getvalue().count(hint) == 1


def test_no_hint_where_the_policy_is_busy_or_all_cores_are_used() -> None:
    counted = Throughput(3, wall_s=60.0, policy_s=6.0)
    cores = len(os.sched_getaffinity(0))
    local = LauncherConfig(name="local")
    assert simulator_hint(local, cores, counted) is None
    few = dataclasses.replace(counted, simulators=1)
    slurm = LauncherConfig(name="slurm", cpus_per_task=8, simulators=1)
    assert "launcher.simulators=7 uses all 8 cores" in str(simulator_hint(slurm, 1, few))
    for other in ({"policy_s": 40.0}, {"wall_s": 20.0}):
        assert simulator_hint(slurm, 1, dataclasses.replace(few, **other)) is None


def test_table_counts_what_earlier_lives_of_the_sweep_did(tmp_path: Path) -> None:
    front = compute_front(write_sweep(tmp_path / "dit_speed", episodes=6), OBJECTIVES)
    view = Console(file=io.StringIO(), width=140)
    table = LiveTable(Plan("dit_speed", 40, 6), view)
    table.front(front)
    view.print(table.view())
    text = view.file.getvalue()  # type: ignore[attr-defined]
    assert f"31 of 40 trials · {front.episodes} episodes" in text
    assert "front of dit_speed" in text


def test_null_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with NullProgress() as progress:
        tell_everything(progress)
    assert capsys.readouterr().out == ""


def test_a_stream_that_is_no_terminal_gets_lines() -> None:
    assert isinstance(open_progress(PLAN, io.StringIO()), EventLines)


ON_A_TERMINAL = """
import time
from duqsweep.control.view.live import Plan, open_progress
with open_progress(Plan("dit_speed", 4, 10)) as progress:
    progress.message("ready")
    time.sleep(60)
"""


def test_ctrl_c_gives_the_terminal_back() -> None:
    controller, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    child = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=Path(__file__).parents[2],
        # Whoever runs these tests in the background of a shell has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(terminal)
    seen = b""
    while b"ready" not in seen or b"\x1b[?25l" not in seen:
        seen += os.read(controller, 4096)
    child.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(controller, 4096):
            seen += chunk
    except OSError:  # how Linux reports that the other side of a terminal is gone
        pass
    child.wait(10)
    os.close(controller)
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")  # the cursor is shown again


def test_the_counter_goes_on_where_earlier_controllers_left_it() -> None:
    stream = io.StringIO()
    lines = EventLines(Plan("x", 4, 6, frozenset({0, 1})), stream)
    lines.ended(3, TrialResult("stopped", "asked to", 0, 0, 0, None))
    assert stream.getvalue().endswith(" [3/4]\n")
    lines.ended(1, TrialResult("complete", "more episodes", 0, 0, 0, None))
    assert stream.getvalue().endswith(" [3/4]\n")


@pytest.mark.parametrize(
    ("kind", "reason", "shown"),
    [
        ("EvaluationError", "EvaluationError: no file", "EvaluationError: no file"),
        ("oom", "killed for want of memory", "oom: killed for want of memory"),
    ],
)
def test_the_type_of_an_error_is_said_once(kind: str, reason: str, shown: str) -> None:
    result = TrialResult("failed", reason, 0, 0, 0, None, kind, "Traceback")
    assert wording.result_text(result) == f"FAILED: {shown}"
    assert wording.cause(kind, reason) == shown


def test_lines_that_nobody_reads_any_more_do_not_end_the_sweep() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        lines = EventLines(PLAN, stream)
        for _ in range(3):
            lines.message("nobody hears this")


def test_where_episodes_are_shared_out_they_are_counted_and_not_the_trials() -> None:
    view = Console(file=io.StringIO(), width=140)
    view.print(LiveTable(Plan("x", 10, 6, shared_episodes=60), view).view())
    text = view.file.getvalue()  # type: ignore[attr-defined]
    assert "0 trials · 0 of 60 episodes" in text


def clocked_lines(plan: Plan) -> tuple[EventLines, io.StringIO, list[float]]:
    stream, now = io.StringIO(), [0.0]
    return EventLines(plan, stream, clock=lambda: now[0]), stream, now


def last_line(stream: io.StringIO) -> str:
    return stream.getvalue().splitlines()[-1][len("00:00:00 ") :]


def test_a_log_says_after_a_quiet_minute_what_runs_and_how_long_it_takes_still() -> None:
    plan = dataclasses.replace(PLAN, phase={2: "compile"}.get)
    lines, stream, now = clocked_lines(plan)
    lines.started(TRIAL)
    lines.started(make_trial(3))
    now[0] = 59.0
    lines.tick()
    assert stream.getvalue().count("\n") == 2
    now[0] = 60.0
    lines.tick()
    assert last_line(stream) == "running: trial 2 (compiling), 3 (waiting)"
    lines.tick()
    assert stream.getvalue().count("\n") == 3
    lines.vitals(2, VITALS)
    now[0] = 130.0
    lines.progressed(2, 7, 6)
    lines.tick()
    # 10 s per episode: 60 + 7 × 10 of the trial's 60 + 10 × 10 s are done, 0.8125 of four trials,
    # in 130 s.
    assert last_line(stream) == (
        "running: trial 2 (7 of 10 episodes), 3 (waiting), about 8 min 30 s left"
    )


def test_lines_on_what_runs_become_rare_in_a_long_sweep() -> None:
    lines, stream, now = clocked_lines(PLAN)
    lines.started(TRIAL)
    for second in range(24 * 3600):
        now[0] = float(second)
        lines.tick()
    assert 100 < stream.getvalue().count("\n") < 250


def test_an_ended_trial_comes_with_the_time_that_is_left() -> None:
    lines, stream, now = clocked_lines(PLAN)
    lines.started(TRIAL)
    now[0] = 30.0
    lines.ended(2, make_result(make_episodes(2, 10, 1.0)))
    assert last_line(stream).endswith("[1/4], about 1 min 30 s left")


def test_where_episodes_are_shared_out_their_pace_gives_the_time_that_is_left() -> None:
    lines, stream, now = clocked_lines(Plan("x", 10, 6, shared_episodes=60))
    lines.started(TRIAL)
    now[0] = 100.0
    lines.progressed(2, 13, 10)  # twelve are of an earlier controller
    lines.progressed(2, 20, 10)
    lines.tick()
    assert last_line(stream) == "running: trial 2 (20 episodes), about 8 min 20 s left"  # 40 × 12.5


def test_a_trial_that_is_measured_shows_what_its_worker_does() -> None:
    plan = dataclasses.replace(PLAN, phase={2: "freeze"}.get)
    view = Console(file=io.StringIO(), width=80)
    table = LiveTable(plan, view)
    table.started(TRIAL)
    table.started(make_trial(3))
    view.print(table.view())
    text = view.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"2 .* quantizing ", text)
    assert re.search(r"3 .* waiting ", text)


def test_an_estimate_comes_with_the_first_episode() -> None:
    now = [0.0]
    table = LiveTable(PLAN, Console(file=io.StringIO(), width=80), clock=lambda: now[0])
    table.started(TRIAL)
    now[0] = 20.0
    table.vitals(2, VITALS)
    assert "left" not in table._status()
    now[0] = 24.0
    table.progressed(2, 1, 1)
    # 24 of 20 + 10 × 4 s, 0.4 of four trials, in 24 s.
    assert "about 3 min 36 s left" in table._status()


RESIZED = """
import fcntl, os, struct, sys, termios, time
from duqsweep.control.view.live import Plan, open_progress
def resize(columns):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
resize(100)
with open_progress(Plan("dit_speed", 4, 10)) as progress:
    progress.tick()
    resize(60)
    progress.message("ready")
    progress.tick()
    time.sleep(0.3)
"""


def test_a_terminal_that_was_resized_is_drawn_anew() -> None:
    controller, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    child = subprocess.Popen(
        [sys.executable, "-c", RESIZED],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    os.close(terminal)
    seen = b""
    try:
        while chunk := os.read(controller, 4096):
            seen += chunk
    except OSError:  # how Linux reports that the other side of a terminal is gone
        pass
    assert child.wait(10) == 0, seen.decode()
    os.close(controller)
    assert seen.count(b"\x1b[2J") == 1
    assert seen.index(b"\x1b[2J") > seen.index(b"ready")


def test_numbers_that_are_missing_are_explained() -> None:
    assert wording.repeats_line([0, 1, 2]) is None
    assert wording.repeats_line([]) is None
    said = wording.repeats_line([0, 3, 4])
    assert said == "no trial 1, 2: each repeated another trial's settings, or was impossible"
    many = wording.repeats_line([99])
    assert many is not None
    assert "10, 11 and 87 more" in many
