"""Jobs for people: a trial's job.json (who evaluates it, the number of attempts), and states."""

from __future__ import annotations

import time
from pathlib import Path

from duqsweep.assignment import Assignment
from duqsweep.files import JOB_JSON, STOP, read_object, write_json


def state_text(state: str, reason: str) -> str:
    """A job's state with its reason, if there is one, for people: `queued (Priority)`."""
    return state if reason in ("", "None") else f"{state} ({reason})"


def note_submission(
    sweep_dir: Path,
    assignment: Assignment,
    launcher: str,
    worker: str | None,
    number: int,
    job_id: str | None,
) -> None:
    """Write job.json, one attempt more than before, and remove an old `stop`.

    Args:
        sweep_dir: The sweep's folder; the trial's folder exists.
        assignment: What is submitted.
        launcher: inline, local or slurm.
        worker: Its folder's name, if it has one.
        number: Of the assignment in the worker's mailbox.
        job_id: The launcher's, as soon as it is known.
    """
    folder = assignment.folder(sweep_dir)
    (folder / STOP).unlink(missing_ok=True)
    content = {
        "worker": worker,
        "seq": number,
        "job_id": job_id,
        "launcher": launcher,
        "until_episode": assignment.until_episode,
        "submitted_at": time.time(),
        "attempts": attempts(folder) + 1,
    }
    write_json(folder / JOB_JSON, content)


def note_job(folder: Path, job_id: str) -> None:
    """Add the job's id to the job.json of a trial's folder."""
    path = folder / JOB_JSON
    write_json(path, read_object(path) | {"job_id": job_id})


def attempts(folder: Path) -> int:
    """How often the trial in `folder` has been submitted."""
    path = folder / JOB_JSON
    return int(read_object(path, ["attempts"])["attempts"]) if path.exists() else 0
