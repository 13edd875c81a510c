"""What a trial does before its first episode, as its worker says."""

from __future__ import annotations

from pathlib import Path

from duqsweep import files
from duqsweep.errors import EvaluationError


def read_phase(trial_dir: Path) -> str | None:
    """The phase of a trial that is being prepared; None before its job began and when it is over.

    A worker that was killed leaves its last phase behind; the trial's next job has begun none.
    """
    try:
        shown = files.read_object(trial_dir / files.PHASE_JSON, ("phase", "since_s"))
        job = files.read_object(trial_dir / files.JOB_JSON, ("submitted_at",))
    except (FileNotFoundError, EvaluationError):  # damaged: the start of the next phase mends it
        return None
    return str(shown["phase"]) if shown["since_s"] >= job["submitted_at"] else None
