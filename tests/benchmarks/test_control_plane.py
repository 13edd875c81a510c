"""The control plane's benchmark runs, and one more trial costs as much in a large sweep."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import control_plane
import pytest

from duqsweep import files
from duqsweep.control.front.pareto import FrontDraws
from duqsweep.control.trials import reader

LAST = 8  # trials that the loop runs


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "WINDOW", 4)
    monkeypatch.setattr(control_plane, "REST_S", 0.3)
    monkeypatch.setattr(control_plane, "QUIET_S", 0.0)


def counted(monkeypatch: pytest.MonkeyPatch, folder: Path, before: int) -> Counter[str]:
    """What the loop does for its last trials in a sweep that has `before` others."""
    counts: Counter[str] = Counter()
    config = control_plane.sweep_config(folder, "random", before + LAST, 3, "none")
    measured = control_plane.Measured(config, before)
    with monkeypatch.context() as patched:
        watched = ((reader, "read_trial"), (files, "write_bytes"), (FrontDraws, "_join"))
        for owner, name in watched:
            act = getattr(owner, name)

            def acted(*arguments, act=act, name=name, **named):
                # Not what the start takes in, within the loop's first turn; and how often
                # front.json is written is up to the clock.
                is_front = str(arguments[0]).endswith((files.FRONT_JSON, files.FRONT_SOURCES_JSON))
                if measured._worker.ended > before + control_plane.JOBS and not is_front:
                    counts[name] += 1
                return act(*arguments, **named)

            patched.setattr(owner, name, acted)
        measured.run()
    (row,) = measured.found["rows"]
    assert (row["trials"], row["objectives"], row["tracking"]) == (before + LAST, 3, "none")
    assert row["files"] > 6 * (before + LAST)
    assert measured.found["rest_share"][0]["share"] >= 0
    return counts


def test_a_trial_of_a_large_sweep_costs_no_more_reads_writes_and_comparisons(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = counted(monkeypatch, tmp_path / "small", 12)
    large = counted(monkeypatch, tmp_path / "large", 96)
    assert small["_join"] > 0
    assert small["read_trial"] >= LAST
    for name, count in large.items():  # a poll may see a trial's files one by one
        assert count <= 1.5 * small[name], (name, small, large)


def test_rows_of_other_cases_stay(tmp_path: Path) -> None:
    def row(trials: int, ms: float) -> dict[str, object]:
        return {
            "trials": trials,
            "objectives": 2,
            "tracking": "none",
            "cpu_ms_per_trial": ms,
        }

    path = tmp_path / "table.json"
    control_plane.save(path, {"rows": [row(50, 9.0), row(300, 8.0)]})
    control_plane.save(path, {"rows": [row(50, 7.0)], "commands": []})
    found = json.loads(path.read_text())
    assert {r["trials"]: r["cpu_ms_per_trial"] for r in found["rows"]} == {50: 7.0, 300: 8.0}
