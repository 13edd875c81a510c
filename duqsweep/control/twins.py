"""The unquantized twins of a front's points, which say what quantization itself brings.

They lie in a folder of their own in the sweep's folder, and are timed as any trial is: beside the
unquantized, eager policy, by the sweep's own launcher. They play no episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from duqsweep.control.front.factors import TWINS_DIR, Form, Timings
from duqsweep.control.front.records import Front
from duqsweep.control.trials.reader import TrialView, read_trials
from duqsweep.fingerprint import fingerprint
from duqsweep.spec import PolicySpec, QuantSpec, SuiteSpec, Trial, TrialSpec


def read_timings(sweep_dir: Path, views: Sequence[TrialView]) -> Timings:
    """The unquantized forms that a sweep has timed; `views` are its trials."""
    return Timings(views, read_trials(sweep_dir / TWINS_DIR))


def untimed(front: Front, views: Sequence[TrialView], timings: Timings) -> list[Form]:
    """The forms that must be timed before the factors of every point on the front are known."""
    by_number = {view.number: view for view in views}
    specs = [by_number[point.trial].trial.spec for point in front.members if point.factors is None]
    return list(dict.fromkeys(form for spec in specs for form in timings.missing(spec)))


def twin_trials(sweep_dir: Path, forms: Sequence[Form], suite: SuiteSpec) -> list[Trial]:
    """A trial for each form: the one that was begun, or a new one with the next number.

    Args:
        sweep_dir: The sweep's folder.
        forms: What is to be timed.
        suite: The sweep's; gives the observations of the calls.
    """
    begun = [view.trial for view in read_trials(sweep_dir / TWINS_DIR)]
    known = {Form.twin(trial.spec): trial for trial in begun}
    free = max((trial.number for trial in begun), default=-1) + 1
    trials = []
    for form in forms:
        if form not in known:
            known[form] = _trial(free, form, suite)
            free += 1
        trials.append(known[form])
    return trials


def _trial(number: int, form: Form, suite: SuiteSpec) -> Trial:
    spec = TrialSpec(form.policy, QuantSpec(), form.runtime, suite)
    params: dict[str, bool | int | float | str] = {
        "policy.num_steps": form.policy.num_steps,
        "runtime.compile": form.runtime.compile,
    }
    if form.policy.schedule != PolicySpec.schedule:
        params["policy.schedule"] = form.policy.schedule
    return Trial(number, None, params, fingerprint(spec, {}), spec)
