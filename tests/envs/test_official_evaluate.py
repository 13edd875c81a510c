"""`duqsweep evaluate` plays an official suite with a pi0.5 of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import mujoco
import pytest
from official import official_suite, write_quick_policy

from duqsweep.envs.asset_files import needed_files
from duqsweep.verbs import doctor, evaluate


def test_evaluate_plays_an_official_suite_from_the_command_line(
    official_assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_quick_policy(tmp_path / "checkpoint")
    policy = ["policy=pi05_libero", "policy.checkpoint=checkpoint"]
    suite = ["suite=libero_object"]  # the assets are found where the extra puts them
    quick = ["suite.tasks=1", "suite.image_px=64", "suite.max_steps=12"]
    assert evaluate.main([*policy, *suite, "--episodes", "2", *quick]) == 0
    (trial,) = tmp_path.glob("sweeps/*/trials/0000")
    lines = (trial / "episodes.jsonl").read_text().splitlines()
    told = [(e["suite"], e["steps"], e["calls"], e["error"]) for e in map(json.loads, lines)]
    assert told == [("libero_object", 12, 3, None)] * 2
    result = json.loads((trial / "result.json").read_text())
    assert (result["outcome"], result["episodes"]) == ("complete", 2)
    simulator = json.loads((trial / "vitals.json").read_text())["simulator"]
    assert (simulator["assets"], simulator["mujoco"]) == ("original", mujoco.__version__)
    assert json.loads((trial.parents[1] / "simulator.json").read_text()) == simulator


def test_the_doctor_looks_at_the_suite_that_it_is_told(
    official_assets: Path, plain_official_assets: Path
):
    said = "libero_goal draws agentview, wrist by osmesa"
    assert doctor.check_simulator(official_suite("libero_goal", plain_official_assets)) == said
    said = f"all 40 files of libero_goal in {official_assets.resolve()} are LIBERO's own"
    assert doctor.check_assets(official_suite("libero_goal", official_assets)) == said


def test_the_doctor_recognises_stand_ins(official_assets: Path, tmp_path: Path):
    for name in needed_files("libero_goal"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(official_assets / name)
    picture = tmp_path / next(n for n in needed_files("libero_goal") if n.endswith(".png"))
    picture.unlink()
    picture.write_bytes(b"a plain colour")
    said = doctor.check_assets(official_suite("libero_goal", tmp_path))
    assert said.startswith("1 of the 40 files of libero_goal")
    assert said.endswith("are stand-ins: pictures are not LIBERO's")
