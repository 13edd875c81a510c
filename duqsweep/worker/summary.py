"""The files of a trial so far, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from duqsweep import files
from duqsweep.result import (
    EpisodeRecord,
    Outcome,
    SuccessCounts,
    TrialResult,
    Vitals,
    final_attempts,
)

ERRORS_TOLERATED = 0.05  # of the assigned episodes; and one is always tolerated


@dataclass(frozen=True)
class SavedProgress:
    """What earlier processes left in a trial's folder."""

    vitals: Vitals | None
    episodes: tuple[EpisodeRecord, ...]  # the last attempt of each ledger entry, in ledger order
    result: TrialResult | None

    @classmethod
    def read(cls, trial_dir: Path) -> SavedProgress:
        """Raises SpecError or EvaluationError when a file holds something impossible."""
        vitals_path, result_path = trial_dir / files.VITALS_JSON, trial_dir / files.RESULT_JSON
        records = files.read_records(EpisodeRecord, trial_dir / files.EPISODES_JSONL)
        return cls(
            vitals=files.read_record(Vitals, vitals_path) if vitals_path.exists() else None,
            episodes=tuple(final_attempts(records)),
            result=files.read_record(TrialResult, result_path) if result_path.exists() else None,
        )

    @property
    def finished(self) -> frozenset[int]:
        """Ledger entries that need no more attempt: they ran, or their second attempt erred too.

        Episodes may end in any order, so the set may have gaps.
        """
        return frozenset(
            record.i for record in self.episodes if record.error is None or record.attempt > 0
        )


def too_many_errors(episodes: tuple[EpisodeRecord, ...], until_episode: int) -> str | None:
    """Why a trial with these episodes has failed for its errors, or None while they are few."""
    errors = [record.error for record in episodes if record.error is not None]
    if len(errors) < 2 or len(errors) <= ERRORS_TOLERATED * until_episode:
        return None
    return (
        f"{len(errors)} of {until_episode} episodes ended in errors, tolerated are "
        f"{ERRORS_TOLERATED:.0%}; the last: {errors[-1]}"
    )


def summarise(
    episodes: tuple[EpisodeRecord, ...],
    outcome: Outcome,
    reason: str,
    error: tuple[str, str] | None = None,
) -> TrialResult:
    """The result over the last attempt of each episode.

    Args:
        episodes: One record per ledger entry.
        outcome: How the trial ended.
        reason: A sentence for people.
        error: Type and traceback of what made it fail.
    """
    counts = SuccessCounts.of(episodes)
    return TrialResult(
        outcome=outcome,
        reason=reason,
        episodes=counts.episodes,
        successes=counts.successes,
        errors=counts.errors,
        success_rate=counts.success_rate,
        error_type=error and error[0],
        traceback=error and error[1],
    )
