"""`duqsweep evaluate` walks an official suite with a pi0.5 of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from official import official_protocol

from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.verbs import doctor, evaluate


def test_evaluate_plays_an_official_suite_from_the_command_line(
    official_assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").symlink_to(official_assets)
    write_random(tmp_path / "checkpoint", RandomPi05(small_sizes()))
    policy = ["policy=pi05_libero", "policy.checkpoint=checkpoint"]
    suite = ["suite=libero_object", "suite.assets=assets"]
    quick = ["suite.tasks=1", "suite.image_px=64", "suite.max_steps=12"]
    assert evaluate.main([*policy, *suite, "--episodes", "2", *quick]) == 0
    (trial,) = tmp_path.glob("sweeps/*/trials/0000")
    lines = (trial / "episodes.jsonl").read_text().splitlines()
    told = [(e["suite"], e["steps"], e["calls"], e["error"]) for e in map(json.loads, lines)]
    assert told == [("libero_object", 12, 3, None)] * 2
    result = json.loads((trial / "result.json").read_text())
    assert (result["outcome"], result["episodes"]) == ("complete", 2)


def test_the_doctor_looks_at_the_suite_that_it_is_told(official_assets: Path):
    protocol = official_protocol("libero_goal", official_assets)
    said = "libero_goal draws agentview, wrist by osmesa"
    assert doctor.check_simulator(protocol) == said
    assert doctor.check_assets(protocol) == f"libero_goal's assets in {official_assets}"
