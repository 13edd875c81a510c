"""Trials with a given number of finished episodes."""

from __future__ import annotations

from pathlib import Path

from duqsweep import files
from duqsweep.control.sweep_format import FORMAT, FORMAT_KEY
from duqsweep.result import EpisodeRecord, TrialResult
from duqsweep.spec import PolicySpec, QuantSpec, RuntimeSpec, SuiteSpec, Trial, TrialSpec

SUITE = SuiteSpec(
    name="duq_mini",
    tasks=6,
    init_states=50,
    image_px=64,
    max_steps=200,
    nominal_steps=90,
    settle_steps=5,
    replan_steps=5,
)


def write_walk(sweep_dir: Path, number: int, outcome: str | None, episodes: int) -> None:
    """Write trial `number` with so many successes; without an outcome it has no result."""
    folder = files.trial_dir(sweep_dir, number)
    folder.mkdir(parents=True)
    spec = TrialSpec(PolicySpec("embedded"), QuantSpec(), RuntimeSpec(), SUITE)
    trial = Trial(number, None, {}, f"{number:016x}", spec)
    files.write_json(folder / files.SPEC_JSON, trial.to_json())
    files.write_json(sweep_dir / files.IDENTITY_JSON, {FORMAT_KEY: FORMAT})
    for i in range(episodes):
        record = EpisodeRecord(i, "duq_mini", i % 6, i, 7, True, 90, 18, 0.1, 0.1, 0.2)
        files.append_line(folder / files.EPISODES_JSONL, record.to_json())
    if outcome is not None:
        error = ("RuntimeError", "…") if outcome == "failed" else (None, None)
        result = TrialResult(outcome, "boom", episodes, episodes, 0, 1.0, *error)
        files.write_json(folder / files.RESULT_JSON, result.to_json())
