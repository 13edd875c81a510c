"""The sweep of latency through the real command, without a simulator and without torch._dynamo."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from commands import ROOT, Finished, Here, hashes, run, trial_dirs

from duqsweep import files

pytestmark = pytest.mark.slow

TRIALS = 2
# The simulator, and what torch._dynamo needs, which takes as long to import as torch itself.
ABSENT = ("libero", "mujoco", "robosuite", "bddl", "sympy")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH on which packages that this sweep must not import fail to import."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ABSENT:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('not here')\n")
    return os.pathsep.join((str(folder), str(ROOT)))


@pytest.fixture(scope="module")
def latency(tmp_path_factory: pytest.TempPathFactory, path: str, checkpoint: Path) -> Finished:
    """The shipped sweep, cut short, of a quicker policy, with MLflow."""
    cwd = tmp_path_factory.mktemp("latency")
    words = ("+sweep=latency", "launcher=inline", f"budget.trials={TRIALS}")
    words = (*words, f"policy.checkpoint={checkpoint}")
    words = (*words, "space.policy.num_steps=choice(1, 2)", "sampler=random")
    process = run(words, cwd, PYTHONPATH=path, MLFLOW_TRACKING_URI="")
    return Finished(cwd / "sweeps" / "latency", words, process)


def test_trials_are_benchmarked_without_a_simulator(latency: Finished) -> None:
    assert latency.process.returncode == 0, latency.process.stderr
    front = files.read_json(latency.folder / "front.json")
    assert [objective["name"] for objective in front["objectives"]] == [
        "call_ms",
        "action_error",
        "weights_mb",
    ]
    assert len(front["points"]) == TRIALS
    assert any(point["on_front"] for point in front["points"])
    for trial in trial_dirs(latency.folder):
        vitals = files.read_json(trial / "vitals.json")
        assert vitals["call_ms"]["p50"] > 0
        assert (vitals["launches"], vitals["allocated_mb"]) == ({}, None)
        result = files.read_json(trial / "result.json")
        assert (result["outcome"], result["episodes"]) == ("complete", 0)
        assert not (trial / "episodes.jsonl").exists()
    for word in ("call", "action_error", "weights_mb", "no episodes", "mlflow"):
        assert word in latency.process.stdout.lower()
    assert "success" not in latency.process.stdout
    assert (latency.folder / "front.png").is_file()


def test_the_same_command_again_changes_nothing(latency: Finished, here: Here) -> None:
    before = hashes(latency.folder)
    cwd = latency.folder.parent.parent
    again = here(latency.words, cwd, MLFLOW_TRACKING_URI="")
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing was left to do" in again.stdout
    assert hashes(latency.folder) == before


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(
    latency: Finished, tmp_path: Path, here: Here
) -> None:
    folder = Path(shutil.copytree(latency.folder, tmp_path / "latency"))
    before = hashes(folder / "trials")
    more = f"budget.trials={TRIALS + 1}"
    words = [*latency.words, f"dir={folder}", "tracking=none", "budget.twins=false", more]
    again = here(words, tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(files.read_json(folder / "front.json")["points"]) == TRIALS + 1
    assert before.items() <= hashes(folder / "trials").items()


def test_verbs_read_it(latency: Finished, tmp_path: Path, here: Here) -> None:
    folder = str(latency.folder)
    state = json.loads(here(["status", folder, "--json"], tmp_path).stdout)
    assert (state["counts"]["complete"], state["episodes"]) == (TRIALS, 0)
    shown = here(["status", folder], tmp_path).stdout
    assert "call ×" in shown  # as `status` heads the column of ratios
    assert "succeeded" not in shown
    assert "call" in here(["front", folder], tmp_path).stdout
    exported = here(["export", folder, "--pick", "knee"], tmp_path)
    assert (exported.returncode, "evaluate policy=embedded" in exported.stdout) == (0, True)
    assert (latency.folder / "report.html").is_file()
    confirm = here(["confirm", folder], tmp_path)
    assert (confirm.returncode, "no episodes to confirm" in confirm.stderr) == (2, True)


def test_the_sweep_says_what_quantization_itself_brings(latency: Finished) -> None:
    folder = latency.folder
    vitals = files.read_json(trial_dirs(folder / "twins")[0] / "vitals.json")
    assert vitals["layers_quantized"] == 0
    points = files.read_json(folder / "front.json")["points"]
    (point,) = (point for point in points if point["on_front"] and point["name"] != "reference")
    factors = point["factors"]
    assert factors["steps"] == vitals["speedup"]
    assert not (folder / "twins" / "workers").exists()  # the sweep's own timed it
    assert (factors["compile"], factors["replan"], factors["twin"]) == (1, 1, "twin 0")
    product = factors["steps"] * factors["compile"] * factors["quantization"]
    assert product == pytest.approx(point["speedup"])
    assert f"{factors['quantization']:.2f}×" in latency.process.stdout
    assert "What made them fast" in (folder / "report.html").read_text()


def test_the_verb_times_what_a_sweep_did_not(latency: Finished, tmp_path: Path, here: Here) -> None:
    folder = Path(shutil.copytree(latency.folder, tmp_path / "latency"))
    shutil.rmtree(folder / "twins")
    first = here(["twins", str(folder)], tmp_path)
    assert first.returncode == 0, first.stderr
    timed = hashes(folder / "twins" / "trials")
    explained = here(["explain", "--sweep", str(folder)], tmp_path).stdout
    assert explained.splitlines()[1] in first.stdout
    again = here(["twins", str(folder)], tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert hashes(folder / "twins" / "trials") == timed


def test_one_trial_is_only_timed(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {*ABSENT, *sys.modules}:
        if name.partition(".")[0] in ABSENT:
            monkeypatch.setitem(sys.modules, name, None)  # so that it fails to import
    words = ["evaluate", "--episodes", "0", "suite=recorded", "policy.num_steps=1"]
    done = here(words, tmp_path)
    assert (done.returncode, "complete: benchmarked" in done.stdout) == (0, True), done.stderr
    refused = here(["evaluate", "suite=recorded"], tmp_path)
    assert (refused.returncode, "must be 0, got 6" in refused.stderr) == (2, True)


def test_an_integer_kernel_without_a_gpu_is_a_failed_trial(tmp_path: Path, here: Here) -> None:
    words = ["evaluate", "--episodes", "0", "suite=recorded", "quant.include=dit_all"]
    words.append("quant.kernel=w4a8")
    refused = here([*words, "runtime.device=cpu"], tmp_path)
    assert (refused.returncode, "runtime.device is cpu" in refused.stderr) == (2, True)
    import torch

    if not torch.cuda.is_available():
        failed = here(words, tmp_path)
        assert failed.returncode == 3
        assert "kernel=w4a8 needs a CUDA GPU" in failed.stdout
