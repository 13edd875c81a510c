"""A sweep of light trials that is killed, interrupted and stopped over and over loses nothing.

The command, its controllers and its workers are real.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from commands import ROOT, trial_dirs
from fates import FATES, Battered, check_ends
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from duqsweep import files
from duqsweep.result import EpisodeRecord, SuccessCounts
from duqsweep.spec import Trial

sys.path.append(str(Path(__file__).parent.parent / "dispatch"))

import light_sweep
import light_trials
from stub_trials import episode_of

pytestmark = pytest.mark.slow

TRIALS, EPISODES = 8, 4


@pytest.fixture(scope="module")
def battered(tmp_path_factory: pytest.TempPathFactory) -> Battered:
    """A run for each way to end, and one that finishes.

    The sweep has 40 steps (8 benchmarks, 32 episodes), and each run is bounded in steps, not in
    seconds, so that each finds work left on any machine. A run takes one or two steps before its
    signal, and its two workers finish at most an episode each. Workers that outlive their
    controller finish their trials without it, up to 10 steps; that happens twice, and the second
    time, after Ctrl-C, only the last run comes afterwards.
    """
    folder = tmp_path_factory.mktemp("battered") / "light"
    words = (*light_sweep.WORDS, f"dir={folder}", "launcher=local")
    words = (*words, f"budget.trials={TRIALS}", f"budget.episodes_per_trial={EPISODES}")
    script = Path(light_sweep.__file__)
    environment = {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(script.parent))),
        light_trials.PLAYED: str(folder.parent / "played"),
    }
    battered = Battered(folder, words, [str(script)], environment)
    for fate in FATES:
        battered.live(fate)
    battered.finish()
    return battered


def test_every_life_ends_as_it_was_made_to_and_the_last_one_finishes(battered: Battered) -> None:
    assert list(battered.lives) == [*FATES, "last"]
    check_ends(battered)


def test_the_ledger_never_changes(battered: Battered) -> None:
    assert len(set(battered.ledgers)) == 1


@pytest.mark.fault(
    "controller killed at any moment", "SIGKILL at seeded moments; the same command resumes"
)
def test_no_episode_is_played_twice_and_none_is_left_out(battered: Battered) -> None:
    for folder in trial_dirs(battered.folder):
        lines = files.read_lines(folder / files.EPISODES_JSONL)
        assert [(line["i"], line["attempt"]) for line in lines] == [(i, 0) for i in range(EPISODES)]
    played = files.read_lines(Path(battered.environment[light_trials.PLAYED]))
    assert set(Counter(map(tuple, played)).values()) == {1}


def test_no_trial_is_lost_or_repeated_and_the_study_knows_them_all(battered: Battered) -> None:
    folders = trial_dirs(battered.folder)
    assert len({files.read_json(f / files.SPEC_JSON)["fingerprint"] for f in folders}) == TRIALS
    path = str(shutil.copy(battered.folder / files.STUDY_LOG, battered.folder / "copy.log"))
    study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(path)))
    told = {trial.number for trial in study.trials if trial.state == TrialState.COMPLETE}
    assert told == {int(folder.name) for folder in folders}
    assert len(study.trials) == TRIALS


def test_trials_end_as_without_interruption(battered: Battered) -> None:
    for folder in trial_dirs(battered.folder):
        trial = Trial.from_json(files.read_json(folder / files.SPEC_JSON))
        records = [episode_of(trial, i) for i in range(EPISODES)]
        lines = files.read_lines(folder / files.EPISODES_JSONL)
        assert [EpisodeRecord.from_json(line) for line in lines] == records
        result, counts = files.read_json(folder / files.RESULT_JSON), SuccessCounts.of(records)
        assert (result["outcome"], result["successes"]) == ("complete", counts.successes)


def test_confirm_plays_reserved_states_with_workers(
    battered: Battered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**battered.environment, light_trials.PLAYED: f"{tmp_path}/played"}.items():
        monkeypatch.setenv(name, value)
    folder = shutil.copytree(battered.folder, tmp_path / "light")
    words = ["confirm", str(folder), "--episodes", "2", "--trials", "0,1"]
    assert light_sweep.main(words) == 0
    confirmed = files.read_json(folder / "confirm" / "confirm.json")
    assert [point["episodes"] for point in confirmed["points"]] == [2, 2]
    assert len(list((folder / "confirm" / files.WORKERS_DIR).iterdir())) == 2
    assert len(files.read_lines(tmp_path / "played")) == 4
    assert light_sweep.main(words) == 0
    assert len(files.read_lines(tmp_path / "played")) == 4


def test_who_presses_ctrl_c_is_told_how_to_go_on(battered: Battered) -> None:
    lines = battered.lives["Ctrl-C"].out.splitlines()
    assert lines[-2].startswith("interrupted: ")
    assert "the same command resumes" in lines[-2]
    assert lines[-1].startswith("  python ")


def test_workers_that_outlive_their_controller_are_taken_up_again(battered: Battered) -> None:
    assert "re-attached" in battered.lives["all killed"].out
