"""A trial's state and its cause: `trials/NNNN/state.json`, which only the controller writes.

queued    an assignment waits for a job: the trial is new, or its last job died
running   a job has its assignment
paused    its assignment is reached, and the search may give it more episodes
complete  its assignment is reached, and the search wants no more episodes of it
pruned    the early-stopping strategy decided that more episodes are not worth their time
failed    its policy failed
stopped   the user stopped the sweep; the next start resumes the trial
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duqsweep import files
from duqsweep.codec import encode

State = Literal["queued", "running", "paused", "complete", "pruned", "failed", "stopped"]
FINAL: tuple[State, ...] = ("complete", "pruned", "failed")  # the search hears of these as ended


@dataclass(frozen=True)
class TrialStatus:
    """The state of a trial."""

    state: State
    cause: str  # a sentence for people
    until_episode: int  # where its latest assignment ends


def read_status(trial_dir: Path) -> TrialStatus | None:
    """The trial's status; None before the controller has taken its first assignment.

    Raises:
        EvaluationError: The file is not JSON.
        SpecError: It holds an unknown state or lacks a key.
    """
    path = trial_dir / files.STATE_JSON
    return files.read_record(TrialStatus, path) if path.exists() else None


def write_status(trial_dir: Path, status: TrialStatus) -> None:
    """Replace the trial's status, durably."""
    files.write_json(trial_dir / files.STATE_JSON, encode(status))
