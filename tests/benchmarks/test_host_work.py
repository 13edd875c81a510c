"""The benchmark of the host's work runs on a CPU and writes what it says."""

from __future__ import annotations

import json
from pathlib import Path

import host_work
import pytest


def test_the_steps_of_a_call_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "host.json"
    words = ["--device=cpu", "--num-steps=1", "--rounds=2", "--state-in-prompt", f"--out={out}"]
    monkeypatch.setattr("sys.argv", ["host_work.py", *words])
    host_work.main()
    data = json.loads(out.read_text())
    steps = data["ms"]
    assert data["form"] == "bf16"
    assert steps["call"] > steps["prompt: state, text, tokens"] > 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in steps)
