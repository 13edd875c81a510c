"""What happens to a trial whose job died: another job now, another start later, or its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from duqsweep import files
from duqsweep.assignment import ALWAYS_RETRIED, Assignment, Failure
from duqsweep.control.trial_status import TrialStatus, read_status, write_status
from duqsweep.control.trials.reader import deaths_of

RETRIES = 2  # of a trial at the same episode
# Of a trial that ran out of memory there. Another program on the node may have used it up once.
OOM_RETRIES = 1
STRIKES = 3  # jobs in a row that die the same way before they make progress
RETRY = "retry"  # a line of failures.jsonl in place of a kind: a person asked for the trial again

Verdict = Literal["again", "open", "final"]


class Deaths:
    """The deaths of jobs since the controller started.

    Only a fault of the policy ends its trial. Other deaths leave the trial open: it has no result,
    the study is not told, and the next start of the sweep tries it again.
    """

    def __init__(self, sweep_dir: Path) -> None:
        """Nothing has died."""
        self._dir = sweep_dir
        self._here: dict[tuple[int, int], int] = {}  # (trial, episodes) → deaths of the machine
        self._strikes: list[tuple[int, Failure]] = []
        self.open: dict[int, Failure] = {}  # trial → why its last job died

    def classify(
        self, assignment: Assignment, failure: Failure, episodes: int, began: bool, is_old: bool
    ) -> Verdict:
        """Record a death, and return what happens to its trial.

        Args:
            assignment: What the job did.
            failure: How it died.
            episodes: That the trial has played.
            began: Whether the job got as far as a benchmark or an episode.
            is_old: An earlier controller submitted it, and it may have died before this one began.

        Returns:
            again: another job resumes it now; open: the next start does; final: the trial failed.
        """
        number = assignment.trial
        note_death(self._dir, number, failure, episodes)
        if failure.fault == "policy":
            again = failure.retry and self._may_crash_again(number, failure, episodes)
            return "again" if again else "final"
        if began:
            self.progress()
        if failure.kind in ALWAYS_RETRIED:
            return "again"
        if not began and not is_old:
            self._strike(number, failure)
        self._here[number, episodes] = self._here.get((number, episodes), 0) + 1
        if (failure.retry or is_old) and self._here[number, episodes] <= RETRIES:
            return "again"
        self.open[number] = failure
        return "open"

    def progress(self) -> None:
        """A job made progress, so what kills others does not kill all."""
        self._strikes.clear()

    @property
    def common(self) -> Failure | None:
        """How every job dies before it makes progress; None while that is not known.

        The death of a job that cannot start does not depend on its trial. Any other death counts
        only if jobs of two trials died that way.
        """
        if len(self._strikes) < STRIKES:
            return None
        last = self._strikes[-1][1]
        trials = {number for number, _ in self._strikes}
        return last if last.kind == "setup" or len(trials) > 1 else None

    def _strike(self, number: int, failure: Failure) -> None:
        if self._strikes and self._strikes[-1][1].kind != failure.kind:
            self._strikes.clear()
        self._strikes.append((number, failure))

    def _may_crash_again(self, number: int, failure: Failure, episodes: int) -> bool:
        """Whether the policy has not crashed too often at this episode, under any controller."""
        lines = since_retry(deaths_of(files.trial_dir(self._dir, number)))
        crashes = [line.get("episodes") for line in lines if line["kind"] == failure.kind]
        most = OOM_RETRIES if failure.kind == "oom" else RETRIES
        return crashes.count(episodes) <= most


def note_death(sweep_dir: Path, number: int, failure: Failure, episodes: int) -> None:
    """Append a death, its cause and whose fault it was to the trial's failures.jsonl."""
    line = {
        "kind": failure.kind,
        "fault": failure.fault,
        "message": failure.message,
        "episodes": episodes,
        "at_s": round(time.time(), 3),
    }
    files.append_line(files.trial_dir(sweep_dir, number) / files.FAILURES_JSONL, line)


def since_retry(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The deaths since a person last asked for the trial again."""
    marks = [place for place, line in enumerate(lines) if line["kind"] == RETRY]
    return list(lines[marks[-1] + 1 :] if marks else lines)


def reopen(trial_dir: Path) -> None:
    """Remove a trial's result, so that the next start evaluates the trial again.

    The result is kept as a line of failures.jsonl. Without a result a trial is not finished,
    whatever its status, so a kill in between loses nothing.
    """
    path = trial_dir / files.RESULT_JSON
    line = {"kind": RETRY, "result": files.read_json(path), "at_s": round(time.time(), 3)}
    files.append_line(trial_dir / files.FAILURES_JSONL, line)
    path.unlink()
    status = read_status(trial_dir)
    until_episode = 0 if status is None else status.until_episode
    write_status(trial_dir, TrialStatus("queued", "`retry` was called", until_episode))
