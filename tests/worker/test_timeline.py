"""When steps and calls happen, against a loop that adds up an episode's waits and steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from duqsweep.worker.video.timeline import CONTROL_STEP_S, Timeline


@given(st.integers(1, 60), st.floats(0.001, 3.0), st.integers(1, 12), st.floats(0, 1))
def test_steps_and_calls_are_those_of_a_loop(steps, call_s, replan_steps, part):
    timeline = Timeline(steps, call_s, replan_steps)
    now, ends, calls = 0.0, [], []
    for step in range(steps):
        if step % replan_steps == 0:
            calls.append(now)
            now += call_s
        now += CONTROL_STEP_S
        ends.append(now)
    assert abs(timeline.duration_s - now) < 1e-6
    moment = part * now
    if min(abs(moment - other) for other in ends + calls) < 1e-6:
        return  # rounding decides
    assert timeline.steps_at(moment) == sum(end <= moment for end in ends)
    assert timeline.calls_at(moment) == sum(call <= moment for call in calls)
