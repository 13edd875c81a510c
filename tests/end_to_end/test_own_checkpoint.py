"""A user's own pi0.5, of a small size and random weights, evaluated by one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from commands import Here

from duqsweep import files
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random

EVALUATE = ("evaluate", "--episodes", "1", "suite.tasks=1", "suite.max_steps=10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, sizes = tmp_path_factory.mktemp("pi05") / "finetuned", small_sizes()
    sizes = replace(sizes, vision=replace(sizes.vision, image_px=56))
    write_random(folder, RandomPi05(sizes, "lerobot"))
    return folder


def test_evaluate_takes_a_users_checkpoint(folder: Path, tmp_path: Path, here: Here) -> None:
    policy = ("policy=pi05_libero", f"policy.checkpoint={folder}", "policy.num_steps=2")
    done = here((*EVALUATE, *policy, "quant.include=dit_mlp"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "9 layers quantized" in done.stdout  # 3 of each layer, 3 layers: the checkpoint's sizes
    assert "of 1 episodes succeeded" in done.stdout
    (trial,) = tmp_path.glob("sweeps/*/trials/0000")
    assert files.read_json(trial / files.VITALS_JSON)["action_error"] > 0


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, here: Here
) -> None:
    policy = ("policy=pi05_libero", f"policy.checkpoint={folder}", "policy.tokenizer=absent.model")
    done = here((*EVALUATE, *policy), tmp_path)
    assert done.returncode == 2
    assert "none at" in done.stderr
    assert not list(tmp_path.iterdir())
