"""A controller leaves when it is told to, or when its job's time comes."""

from __future__ import annotations

import signal
import time

import pytest

from duqsweep.control.config.sweep_config import compose
from duqsweep.verbs.as_job import time_left_s
from duqsweep.verbs.interrupt import HandOver, terminate_as_interrupt


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)]


def test_it_hands_over_before_its_time_ends_without_any_signal() -> None:
    before, start = handlers(), time.monotonic()
    with pytest.raises(HandOver), terminate_as_interrupt(0.2):
        time.sleep(20.0)
    assert time.monotonic() - start < 10.0
    assert handlers() == before


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGUSR2, HandOver), (signal.SIGTERM, KeyboardInterrupt)]
)
def test_a_signal_says_whether_the_next_run_of_the_job_goes_on(
    number: signal.Signals, kind: type[BaseException]
) -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt) as raised, terminate_as_interrupt(600.0):
        signal.raise_signal(number)
    assert raised.type is kind
    assert handlers() == before


def test_the_time_is_the_jobs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["+sweep=smoke", "launcher.controller.timeout_min=60"])
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert time_left_s(config) == pytest.approx(3600.0 - 120.0, abs=5.0)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 500))
    assert time_left_s(config) == pytest.approx(380.0, abs=5.0)
