"""Timing with a clock that only moves when a call says so."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.worker.timing import (
    StoppingRule,
    alternate,
    compile_seconds,
    half_width,
    latency,
    warm_up,
)


class SteppedClock:
    """Seconds that pass only inside calls; a device that is busy until it is waited for."""

    def __init__(self) -> None:
        self.now = self.unfinished = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def sync(self) -> None:
        self.now += self.unfinished
        self.unfinished = 0.0

    def call(self, name: str, cost_s: Callable[[int], float]) -> Callable[[int], None]:
        def launch(number: int) -> None:
            self.order.append(f"{name}{number}")
            self.unfinished += cost_s(number)

        return launch


def test_calls_are_made_in_turns_and_waited_for() -> None:
    clock = SteppedClock()
    calls = [clock.call("a", lambda _: 0.002), clock.call("b", lambda _: 0.005)]
    first, second = alternate(calls, clock.sync, StoppingRule(least=3), clock)
    assert clock.order == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert first == pytest.approx([2.0] * 3)
    assert second == pytest.approx([5.0] * 3)


def test_steady_calls_stop_at_the_least_number_of_rounds() -> None:
    clock = SteppedClock()
    times = alternate([clock.call("a", lambda _: 0.01)], clock.sync, StoppingRule(), clock)
    assert len(times[0]) == StoppingRule().least


def test_noisy_calls_are_repeated_to_the_most() -> None:
    clock = SteppedClock()
    noisy = clock.call("a", lambda number: 0.001 * (1 + number % 7))
    assert len(alternate([noisy], clock.sync, StoppingRule(), clock)[0]) == StoppingRule().most


def test_slow_calls_are_made_only_as_often_as_the_floor() -> None:
    clock = SteppedClock()
    slow = [clock.call("a", lambda number: 2.0 + number % 2), clock.call("b", lambda _: 0.01)]
    times = alternate(slow, clock.sync, StoppingRule(), clock)
    assert [len(series) for series in times] == [StoppingRule().floor] * 2


def test_compilation_is_told_apart_from_running() -> None:
    clock = SteppedClock()
    call = clock.call("a", lambda number: 40.0 if number == 0 else 0.01)
    times = warm_up(call, 2, clock.sync, clock)
    assert compile_seconds(times, warm_ms=10.0) == pytest.approx(39.99)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60))
def test_latency_agrees_with_counting(times: list[float]) -> None:
    stats = latency(times)
    assert stats.n == len(times)
    assert stats.p50 == statistics.median(times)
    assert stats.p95 >= stats.p50
    assert sum(time <= stats.p95 for time in times) >= 0.95 * len(times)


def test_half_width_of_known_numbers() -> None:
    # 1 to 7: quartiles 2, 4, 6; 1.57 * (6 - 2) / (sqrt(7) * 4)
    assert half_width([1, 2, 3, 4, 5, 6, 7]) == pytest.approx(1.57 / 7**0.5)
