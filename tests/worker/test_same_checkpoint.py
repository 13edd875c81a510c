"""A worker evaluates only the checkpoint that its sweep began with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from worker_parts import PaperSimulator, make_trial

from duqsweep import files
from duqsweep.checkpoint.contents import checkpoint_contents
from duqsweep.errors import InfrastructureError
from duqsweep.spec import TrialSpec
from duqsweep.worker.evaluate import WorkerCache, evaluate

WITHOUT_LIBERO = WorkerCache(open_simulator=lambda suite: PaperSimulator())


@pytest.fixture
def begun(tmp_path: Path, trial_spec: TrialSpec, checkpoint: Path) -> tuple[Path, Path]:
    """A trial of a sweep that has begun, and its checkpoint, which the test may change."""
    own = shutil.copytree(checkpoint, tmp_path / "pi05")
    policy = replace(trial_spec.policy, checkpoint=str(own))
    trial_dir = make_trial(tmp_path / "sweep", replace(trial_spec, policy=policy))
    contents = {"checkpoint": checkpoint_contents(policy)}
    files.write_json(tmp_path / "sweep" / files.IDENTITY_JSON, contents)
    return trial_dir, own


def change(file: Path) -> None:
    """Flip the last byte; the size stays."""
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_other_weights_are_refused_and_leave_the_trial_open(begun: tuple[Path, Path]) -> None:
    trial_dir, checkpoint = begun
    weights = next(checkpoint.rglob("*.safetensors"))
    change(weights)
    with pytest.raises(InfrastructureError, match=f"{weights.name} was .* bytes, .*, is .* bytes"):
        evaluate(trial_dir, 0)
    assert not (trial_dir / files.RESULT_JSON).exists()
    change(weights)
    assert evaluate(trial_dir, 0, WITHOUT_LIBERO).outcome == "complete"


def test_a_missing_file_is_named(begun: tuple[Path, Path]) -> None:
    trial_dir, checkpoint = begun
    next(checkpoint.rglob("*.json")).unlink()
    with pytest.raises(InfrastructureError, match="is missing on this node"):
        evaluate(trial_dir, 0)
    assert not (trial_dir / files.RESULT_JSON).exists()


@pytest.mark.parametrize("content", ["{", "{}", "null"])
def test_a_damaged_identity_leaves_the_trial_open(begun: tuple[Path, Path], content: str) -> None:
    trial_dir, _ = begun
    (trial_dir.parent.parent / files.IDENTITY_JSON).write_text(content)
    with pytest.raises(InfrastructureError, match=files.IDENTITY_JSON):
        evaluate(trial_dir, 0)
    assert not (trial_dir / files.RESULT_JSON).exists()
