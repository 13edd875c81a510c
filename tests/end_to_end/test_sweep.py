"""A whole sweep through the real command: its files, its verbs, and the same command again."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import EPISODES, TRIALS, Finished, Here, hashes, run, trial_dirs, with_cache
from shallow_policy import SIZES

from duqsweep import files
from duqsweep.result import EpisodeRecord, SuccessCounts, TrialResult, Vitals
from duqsweep.spec import Trial

pytestmark = pytest.mark.slow

SWEEP_FILES = {
    "sweep.yaml",
    "study.log",
    "ledger.json",
    "reference.json",
    "front.json",
    "front.csv",
    "front.png",
    "report.html",
}
TRIAL_FILES = {"spec.json", "job.json", "vitals.json", "episodes.jsonl", "result.json", "log.txt"}


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """The finished sweep, to be changed."""
    return Path(shutil.copytree(finished.folder, tmp_path / "small"))


def test_local_workers_write_every_file_and_all_agree(finished: Finished) -> None:
    assert (finished.process.returncode, finished.process.stderr) == (0, "")
    check_files(finished.folder, TRIALS, EPISODES)


def test_the_smoke_sweep_writes_every_file_and_mlflows(
    finished: Finished, checkpoint: Path, tmp_path: Path, here: Here
) -> None:
    """The shipped sweep in the command's own process, with MLflow; episodes cut short."""
    folder = with_cache(tmp_path / "sweeps" / "smoke", finished)
    words = ("+sweep=smoke", "launcher=inline", "suite.tasks=1", "suite.max_steps=10")
    words = (*words, "budget.episodes_per_trial=2", "budget.twins=false")
    words = (*words, f"policy.checkpoint={checkpoint}")
    done = here(words, tmp_path, MLFLOW_TRACKING_URI="")
    assert done.returncode == 0, done.stderr
    check_files(folder, 2, 2)
    assert (folder / files.MLFLOW_DB).is_file()
    assert (folder / files.MLFLOW_ARTIFACTS).is_dir()
    assert "mlflow" in done.stdout.lower()
    check_again(Finished(folder, words, done), here)


def check_files(folder: Path, trials: int, episodes: int) -> None:
    assert {path.name for path in folder.iterdir()} >= SWEEP_FILES
    assert all((folder / name).stat().st_size for name in SWEEP_FILES)
    settings = (folder / "sweep.yaml").read_text()
    assert settings.startswith("# space: ")
    assert yaml.safe_load(settings)["name"] == folder.name
    entries = files.read_json(folder / "ledger.json")
    points = {p["trial"]: p for p in files.read_json(folder / "front.json")["points"]}
    assert sorted(points) == list(range(trials))
    for number, trial_dir in enumerate(trial_dirs(folder)):
        assert {path.name for path in trial_dir.iterdir()} >= TRIAL_FILES
        check_trial(trial_dir, points[number], entries[:episodes])


def check_trial(trial_dir: Path, point: dict[str, Any], entries: list[dict[str, int]]) -> None:
    """Its files are records of their kinds, and say the same as each other and as the front."""
    trial = Trial.from_json(files.read_json(trial_dir / "spec.json"))
    vitals = Vitals.from_json(files.read_json(trial_dir / "vitals.json"))
    lines = files.read_lines(trial_dir / "episodes.jsonl")
    records = [EpisodeRecord.from_json(line) for line in lines]
    result = TrialResult.from_json(files.read_json(trial_dir / "result.json"))
    played = [(record.i, record.task, record.init_state) for record in records]
    assert played == [(e["i"], e["task"], e["init_state"]) for e in entries]
    assert result.outcome == "complete"
    assert result.counts == SuccessCounts.of(records)
    assert vitals.speedup == pytest.approx(vitals.reference_call_ms / vitals.call_ms.p50)
    assert vitals.layers_quantized == len(vitals.bits)
    assert set(vitals.parts_ms) == {"vision", "llm", "dit"}
    assert min(*vitals.parts_ms.values(), *vitals.modelled.values()) >= 0
    expected = {
        "params": trial.params,
        "outcome": result.outcome,
        "episodes": result.episodes,
        "success_rate": result.success_rate,
        "speedup": vitals.speedup,
        "kernel": vitals.kernel,
        "weights_mb": vitals.weights_mb,
    }
    assert {key: point[key] for key in expected} == expected
    assert point["success_low"] <= point["success_rate"] <= point["success_high"]
    assert point["episode_time_s"] > 0


def test_the_same_command_again_changes_nothing_and_says_so(finished: Finished, here: Here) -> None:
    check_again(finished, here)


def check_again(sweep: Finished, here: Here) -> None:
    before = hashes(sweep.folder)
    cwd = sweep.folder.parent.parent
    again = here(sweep.words, cwd, MLFLOW_TRACKING_URI="")
    assert (again.returncode, again.stderr) == (0, "")
    assert f"{sweep.folder.name} is finished: nothing was left to do" in again.stdout
    assert str(sweep.folder / files.REPORT_HTML) in again.stdout.replace("\n", "")
    assert hashes(sweep.folder) == before


def test_reading_verbs_show_the_sweep_and_change_nothing(finished: Finished, here: Here) -> None:
    folder, before = str(finished.folder), hashes(finished.folder)

    def shown(*words: str) -> str:
        done = here([words[0], folder, *words[1:]], finished.folder)
        assert (done.returncode, done.stderr) == (0, ""), words
        return done.stdout

    state = json.loads(shown("status", "--json"))
    assert state["counts"]["complete"] == TRIALS
    assert state["episodes"] == TRIALS * EPISODES
    assert [trial["episodes"] for trial in state["trials"]] == [EPISODES] * TRIALS
    assert f"{TRIALS} complete" in shown("status")
    assert json.loads(shown("front", "--json")) == files.read_json(finished.folder / "front.json")
    assert shown("front")
    exported = here(["export", folder, "--trial", "3"], finished.folder)
    assert exported.stderr.startswith("trial 3 succeeds in at least ")
    plan = yaml.safe_load(exported.stdout)["plans"]["small_0003"]
    assert plan == files.read_json(trial_dirs(finished.folder)[3] / "spec.json")["params"]
    assert hashes(finished.folder) == before


def let_succeed(folder: Path, number: int) -> None:
    """Rewrite a trial as if its policy had been a good one; random weights never are."""
    trial = files.trial_dir(folder, number)
    lines = [{**line, "success": True} for line in files.read_lines(trial / "episodes.jsonl")]
    files.write_text(trial / "episodes.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    result = files.read_json(trial / "result.json")
    better = {"successes": len(lines), "success_rate": 1.0}
    files.write_json(trial / "result.json", {**result, **better})


def test_the_point_that_a_rule_picks_is_exported_as_a_script_that_bash_reads(
    copied: Path, here: Here
) -> None:
    quantized = next(
        int(trial.name)
        for trial in trial_dirs(copied)
        if files.read_json(trial / "vitals.json")["layers_quantized"]
    )
    let_succeed(copied, quantized)
    assert f"{quantized}" in here(["front", str(copied)], copied).stdout
    for rule in ("knee", "fastest@success>=0.2"):  # few episodes: wide intervals
        words = ["export", str(copied), "--pick", rule, "--format", "openpi-env"]
        script = here(words, copied).stdout
        assert f"# Trial {quantized} of duqsweep's sweep small" in script
        echo = f'{script}\nprintf %s "$OPENPI_DUQUANT_ABITS"'
        done = subprocess.run(["bash", "-eu", "-c", echo], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "8")


def test_a_larger_budget_of_episodes_goes_on_where_the_smaller_one_ended(
    finished: Finished, copied: Path, here: Here
) -> None:
    done = here([*finished.words, f"dir={copied}", "budget.trials=3"], copied.parent)
    assert done.returncode == 0
    assert hashes(copied / files.TRIALS_DIR) == hashes(finished.folder / files.TRIALS_DIR)


def test_plan_starts_nothing(finished: Finished, tmp_path: Path, here: Here) -> None:
    done = here(["plan", *finished.words], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 points" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_sync_fills_an_emptied_mlflow(copied: Path, here: Here) -> None:
    done = here(["sync", str(copied), "--uri", f"sqlite:///{copied.parent}/other.db"], copied)
    assert done.returncode == 0, done.stderr
    assert f"{TRIALS} trials are in MLflow" in done.stdout


def test_confirm_walks_reserved_states_once(copied: Path, here: Here) -> None:
    settings = (copied / files.SWEEP_YAML).read_text()
    assert settings.count("name: local") == 1
    (copied / files.SWEEP_YAML).write_text(settings.replace("name: local", "name: inline"))
    words = ["confirm", str(copied), "--episodes", "2", "--trials", "0,1"]
    done = here(words, copied)
    assert done.returncode == 0, done.stderr
    content = files.read_json(copied / "confirm" / "confirm.json")
    assert [point["episodes"] for point in content["points"]] == [2, 2]
    front = files.read_json(copied / "front.json")
    tried = {p["trial"]: (p["state"], p["reserved"]["episodes"]) for p in front["points"][:2]}
    assert tried == {0: ("unconfirmed", 2), 1: ("unconfirmed", 2)}
    searched = states(copied)
    assert not searched & states(copied / "confirm")
    before = hashes(copied)
    again = here(words, copied)
    assert (again.returncode, again.stderr) == (0, "")
    assert hashes(copied) == before
    (copied / "confirm" / files.STOP).write_text("")  # ends it before it has played a third episode
    stopped = here(["confirm", str(copied), "--episodes", "3", "--trials", "0,1"], copied)
    assert stopped.returncode == 2
    (line,) = stopped.stderr.splitlines()
    assert "incomplete: trial 0 played 2 of 3 episodes, trial 1 played 2 of 3 episodes" in line
    assert files.read_json(copied / "confirm" / "confirm.json") == content


def states(folder: Path) -> set[tuple[int, int]]:
    lines = [line for t in trial_dirs(folder) for line in files.read_lines(t / "episodes.jsonl")]
    return {(line["task"], line["init_state"]) for line in lines}


def test_evaluate_tries_one_configuration_here_and_now(
    checkpoint: Path, tmp_path: Path, here: Here
) -> None:
    words = ["evaluate", "--episodes", "1", "quant.include=dit_attn", "suite.tasks=1"]
    words += ["suite.max_steps=10", f"policy.checkpoint={checkpoint}"]
    done = run(words, tmp_path)  # as a process, which leaves with simulators that run
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert f"{4 * SIZES.expert.depth} layers quantized" in done.stdout
    assert "of 1 episodes succeeded" in done.stdout
    (folder,) = (tmp_path / "sweeps").iterdir()
    (trial,) = json.loads(here(["status", str(folder), "--json"], tmp_path).stdout)["trials"]
    assert trial["state"] == "complete"
    shown = here(["video", str(folder), "--px", "64", "--speed", "10"], tmp_path)
    assert shown.returncode == 0, shown.stderr
    (video,) = (folder / files.VIDEOS_DIR).iterdir()
    assert video.name == "trial_0000_episode_0000.mp4"
    assert shown.stdout == f"1 of 1: {video}\n"
    again = here(["video", str(folder), "--trial", "0"], tmp_path)
    assert again.stdout == f"1 of 1: {video} is there already\n"


def test_a_trial_whose_policy_fails_is_recorded_and_the_sweep_goes_on(
    finished: Finished, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Integer kernels need a GPU, which only the node of a trial can know.
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = [
        *finished.words,
        "space.policy.num_steps=choice(1)",
        "space.quant.include=choice(dit_attn)",
    ]
    words += ["+space.quant.kernel=choice(int8, fake)", "launcher=inline", "budget.trials=2"]
    folder = with_cache(tmp_path / "sweeps" / "small", finished)
    done = here(words, tmp_path)
    assert done.returncode == 3
    outcomes = {
        files.read_json(trial / "spec.json")["params"]["quant.kernel"]: files.read_json(
            trial / "result.json"
        )
        for trial in trial_dirs(folder)
    }
    assert outcomes["fake"]["outcome"] == "complete"
    assert outcomes["int8"]["outcome"] == "failed"
    assert outcomes["int8"]["traceback"]
    assert "1 of 2 trials failed" in done.stderr
    before = hashes(folder)
    assert here(words, tmp_path).returncode == 3
    assert hashes(folder) == before
