"""What a trial's episodes add up to."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duqsweep import files
from duqsweep.result import EpisodeRecord, LatencyStats, Vitals
from duqsweep.spec import ProtocolSpec
from duqsweep.worker.summary import Progress, summarise, too_many_errors

VITALS = Vitals(
    layers_quantized=0,
    bits={},
    mean_weight_bits=16.0,
    weights_mb=1.0,
    modelled={},
    call_ms=LatencyStats(p50=20.0, p95=30.0, n=7),
    parts_ms={},
    reference_call_ms=40.0,
    speedup=2.0,
    compile_s=0.0,
    action_error=0.0,
    kernel="none",
    hardware={},
    versions={},
    git=None,
)


def record(
    i: int, success: bool = True, error: str | None = None, steps: int = 10
) -> EpisodeRecord:
    return EpisodeRecord(
        i=i,
        suite="duq_mini",
        task=0,
        init_state=i,
        seed=7,
        success=success,
        steps=steps,
        calls=2,
        policy_s=0.1,
        sim_s=0.2,
        wall_s=0.4,
        error=error,
    )


def test_errors_are_neither_successes_nor_failures(protocol: ProtocolSpec) -> None:
    episodes = (record(0), record(1, success=False), record(2, success=False, error="x"))
    result = summarise(episodes, VITALS, protocol, "complete", "")
    assert (result.episodes, result.successes, result.failures, result.errors) == (3, 1, 1, 1)
    assert result.success_rate == 0.5


def test_episode_time_is_nominal_calls_times_the_median(protocol: ProtocolSpec) -> None:
    nominal = dataclasses.replace(protocol, nominal_steps=101, replan_steps=5)
    result = summarise((), VITALS, nominal, "complete", "")
    assert result.episode_time_s == pytest.approx(21 * 0.020)


def test_without_vitals_and_episodes_nothing_is_claimed(protocol: ProtocolSpec) -> None:
    result = summarise((), None, protocol, "failed", "no", ("ValueError", "…"))
    assert (result.episode_time_s, result.success_rate, result.extra) == (None, None, {})


def test_steps_to_success_looks_at_successes_alone(protocol: ProtocolSpec) -> None:
    episodes = (record(0, steps=10), record(1, steps=20), record(2, success=False, steps=90))
    extra = summarise(episodes, VITALS, protocol, "complete", "").extra
    assert extra["steps_to_success"] == 15.0
    assert extra["steps"] == 40.0


@given(st.integers(1, 200), st.integers(0, 40))
def test_more_than_one_error_in_twenty_fails_a_trial_but_never_a_single_one(
    until: int, errors: int
) -> None:
    episodes = tuple(record(i, success=False, error="lost") for i in range(errors))
    reason = too_many_errors(episodes, until)
    assert (reason is not None) == (errors >= 2 and 20 * errors > until)


def test_the_finished_entries_are_a_set_with_gaps(tmp_path) -> None:
    """Episodes may end in any order; an error that was not retried yet is not finished."""
    retried = dataclasses.replace(record(6, success=False, error="x"), attempt=1)
    for one in (record(4), record(0), record(2, success=False, error="x"), retried):
        files.append_line(tmp_path / files.EPISODES_JSONL, one.to_json())
    assert Progress.read(tmp_path).finished == {0, 4, 6}
