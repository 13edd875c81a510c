"""The message to the user when jobs died and trials stay open."""

from __future__ import annotations

from duqsweep.control.deaths import Deaths


def trouble_text(ending: str, deaths: Deaths, command: str) -> str | None:
    """Why a sweep is not done, once, with the last lines of a job's log; None when it is.

    Args:
        ending: Of its loop.
        deaths: Of its jobs.
        command: What resumes the sweep.
    """
    common = deaths.common if ending == "broken" else None
    if common is not None:
        return (
            f"duqsweep: stopped, because every job died the same way ({common.kind}) before it got "
            f"anywhere: {common.message}\n"
            f"No trial has failed for it. Once this is mended, {command} resumes the sweep."
        )
    if not deaths.open:
        return None
    number, failure = next(reversed(deaths.open.items()))
    trials = ", ".join(map(str, sorted(deaths.open)))
    return (
        f"duqsweep: not done: jobs of trial {trials} died through no fault of the policy; the last "
        f"({failure.kind}, trial {number}): {failure.message}\n"
        f"The trials stay open: {command} resumes them."
    )
