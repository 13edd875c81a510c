"""The files of a trial so far, and its result."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from duqsweep import files
from duqsweep.categories import counts_by_category, of_category
from duqsweep.result import EpisodeRecord, Outcome, TrialResult, Vitals, final_attempts
from duqsweep.spec import ProtocolSpec

ERRORS_TOLERATED = 0.05  # of the assigned episodes; and one is always tolerated


@dataclass(frozen=True)
class Progress:
    """What earlier processes left in a trial's folder."""

    vitals: Vitals | None
    episodes: tuple[EpisodeRecord, ...]  # the last attempt of each ledger entry, in ledger order
    result: TrialResult | None

    @classmethod
    def read(cls, trial_dir: Path) -> Progress:
        """Raises SpecError or EvaluationError when a file holds something impossible."""
        vitals_path, result_path = trial_dir / files.VITALS_JSON, trial_dir / files.RESULT_JSON
        lines = files.read_lines(trial_dir / files.EPISODES_JSONL)
        episodes = final_attempts([EpisodeRecord.from_json(line) for line in lines])
        return cls(
            vitals=Vitals.from_json(files.read_json(vitals_path)) if vitals_path.exists() else None,
            episodes=tuple(episodes),
            result=TrialResult.from_json(files.read_json(result_path))
            if result_path.exists()
            else None,
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
    vitals: Vitals | None,
    protocol: ProtocolSpec,
    outcome: Outcome,
    reason: str,
    error: tuple[str, str] | None = None,
) -> TrialResult:
    """The result over the last attempt of each episode.

    Args:
        episodes: One record a ledger entry.
        vitals: For the time of an episode; None when the trial did not come that far.
        protocol: For the nominal number of calls.
        outcome: How it ended.
        reason: A sentence for people.
        error: Type and traceback of what made it fail.
    """
    ran = [record for record in episodes if record.error is None]
    successes = sum(record.success for record in ran)
    time_s = None if vitals is None else protocol.nominal_calls * vitals.call_ms.p50 / 1e3
    return TrialResult(
        outcome=outcome,
        reason=reason,
        episodes=len(episodes),
        successes=successes,
        errors=len(episodes) - len(ran),
        success_rate=successes / len(ran) if ran else None,
        episode_time_s=time_s,
        error_type=error and error[0],
        traceback=error and error[1],
        extra={**_means(ran), **_of_categories(episodes, protocol)},
    )


def _of_categories(episodes: tuple[EpisodeRecord, ...], protocol: ProtocolSpec) -> dict[str, float]:
    """Counts and rate of each category, e.g. `successes.object`; empty without categories."""
    values: dict[str, float] = {}
    for category, counts in counts_by_category(episodes, protocol).items():
        values[of_category("episodes", category)] = counts.episodes
        values[of_category("successes", category)] = counts.successes
        values[of_category("errors", category)] = counts.errors
        if counts.success_rate is not None:
            values[of_category("success_rate", category)] = counts.success_rate
    return values


def _means(ran: list[EpisodeRecord]) -> dict[str, float]:
    """Means over the episodes that ran; `steps_to_success` over the successes alone."""
    if not ran:
        return {}
    means = {
        "steps": statistics.fmean(record.steps for record in ran),
        "policy_s": statistics.fmean(record.policy_s for record in ran),
        "sim_s": statistics.fmean(record.sim_s for record in ran),
        "wall_s": statistics.fmean(record.wall_s for record in ran),
    }
    steps = [record.steps for record in ran if record.success]
    if steps:
        means["steps_to_success"] = statistics.fmean(steps)
    return means
