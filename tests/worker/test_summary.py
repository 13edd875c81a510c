"""What a trial's episodes add up to."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from duqsweep import files
from duqsweep.result import EpisodeRecord
from duqsweep.worker.summary import SavedProgress, summarise, too_many_errors


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


def test_errors_are_neither_successes_nor_failures() -> None:
    episodes = (record(0), record(1, success=False), record(2, success=False, error="x"))
    result = summarise(episodes, "complete", "")
    counts = result.counts
    assert (counts.episodes, counts.successes, counts.failures, counts.errors) == (3, 1, 1, 1)
    assert result.success_rate == 0.5


def test_without_episodes_there_is_no_rate() -> None:
    result = summarise((), "failed", "no", ("ValueError", "…"))
    assert (result.episodes, result.success_rate) == (0, None)


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
    assert SavedProgress.read(tmp_path).finished == {0, 4, 6}
