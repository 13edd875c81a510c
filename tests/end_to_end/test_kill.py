"""A sweep that is killed, interrupted and stopped over and over ends as one that never was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from commands import EPISODES, TRIALS, Finished, run, start, trial_dirs, walks, with_cache
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from duqsweep import files
from duqsweep.mailbox import Mailbox
from duqsweep.processes import start_ticks

pytestmark = pytest.mark.slow

INTERRUPTED = 130
LONGEST_S = 240.0  # until a run gets as far as it must, on a busy machine
LONGEST_PAUSE_S = 1.0  # between an observed step and the signal: about an episode


@dataclass(frozen=True)
class Life:
    """What one command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Battered:
    """A sweep that needed several runs of its command."""

    folder: Path
    lives: dict[str, Life]  # how it ended → the command that ended so
    ledgers: list[bytes]  # after each run


def kill_controller(process: subprocess.Popen[str], folder: Path) -> None:
    os.kill(process.pid, signal.SIGKILL)


def kill_everything(process: subprocess.Popen[str], folder: Path) -> None:
    signal_all(process, folder, signal.SIGKILL)


def terminate_all(process: subprocess.Popen[str], folder: Path) -> None:
    """As `timeout` and schedulers do: SIGTERM to the whole process group, workers included."""
    os.killpg(process.pid, signal.SIGTERM)


def ctrl_c(process: subprocess.Popen[str], folder: Path) -> None:
    os.kill(process.pid, signal.SIGINT)


def stop_verb(process: subprocess.Popen[str], folder: Path) -> None:
    """The sweep stands still meanwhile: the verb takes seconds to start, enough for all trials."""
    signal_all(process, folder, signal.SIGSTOP)
    try:
        assert run(["stop", str(folder)], folder).returncode == 0
    finally:
        signal_all(process, folder, signal.SIGCONT)


def signal_all(process: subprocess.Popen[str], folder: Path, number: signal.Signals) -> None:
    """Signal the controller, its workers, and the workers that an earlier controller started."""
    os.killpg(process.pid, number)
    for worker in (folder / files.WORKERS_DIR).glob("*"):
        alive = Mailbox(worker).heartbeat()
        if alive is not None and start_ticks(alive.pid) == alive.start_ticks:
            with suppress(ProcessLookupError):
                os.kill(alive.pid, number)


# The order matters: see `battered`.
FATES: dict[str, Callable[[subprocess.Popen[str], Path], None]] = {
    "stopped": stop_verb,
    "all terminated": terminate_all,
    "controller killed": kill_controller,
    "all killed": kill_everything,
    "Ctrl-C": ctrl_c,
}
# Runs whose workers end with them have one: each loads torch, LIBERO and the policy. The number may
# change between two runs of a sweep.
ONE_WORKER = ("stopped", "all terminated")


@pytest.fixture(scope="module")
def battered(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Battered:
    """Five runs that end by force, and one that finishes.

    The sweep has 30 steps (6 benchmarks, 24 episodes), and each run is bounded in steps, not in
    seconds, so that each finds work left on any machine. A run takes one or two steps before its
    signal, and its one or two workers finish at most an episode each. Workers that outlive their
    controller finish their trials without it, up to 10 steps; that happens twice, and the second
    time, after Ctrl-C, only the last run comes afterwards.
    """
    cwd = tmp_path_factory.mktemp("battered")
    folder = with_cache(cwd / "sweeps" / "small", finished)
    moments = random.Random(20)
    lives, ledgers = {}, []
    for name, fate in FATES.items():
        log = cwd / f"{name}.txt"
        jobs = ("launcher.jobs=1",) if name in ONE_WORKER else ()
        with log.open("w") as stdout:
            process = start((*finished.words, *jobs), cwd, stdout)
        if name == "all killed":  # first it must find what "controller killed" left
            wait_until(process, lambda log=log: "re-attached" in log.read_text())
        steps = written(folder)
        wait_until(process, lambda steps=steps: written(folder) > steps)
        steps, pause_ends = written(folder), time.monotonic() + moments.uniform(0, LONGEST_PAUSE_S)
        wait_until(
            process,
            lambda steps=steps, end=pause_ends: written(folder) > steps or time.monotonic() > end,
        )
        fate(process, folder)
        _, err = process.communicate(timeout=LONGEST_S)
        lives[name] = Life(process.returncode, log.read_text(), err)
        ledgers.append((folder / files.LEDGER_JSON).read_bytes())
    last = run(finished.words, cwd)
    lives["last"] = Life(last.returncode, last.stdout, last.stderr)
    ledgers.append((folder / files.LEDGER_JSON).read_bytes())
    return Battered(folder, lives, ledgers)


def wait_until(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Wait for something that a running sweep does before it ends."""
    deadline = time.monotonic() + LONGEST_S
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def written(folder: Path) -> int:
    """Steps of the sweep that are done: benchmarks and episodes."""
    lines = sum(len(files.read_lines(p)) for p in folder.glob(f"trials/*/{files.EPISODES_JSONL}"))
    return lines + len(list(folder.glob(f"trials/*/{files.VITALS_JSON}")))


def test_every_life_ends_as_it_was_made_to_and_the_last_one_finishes(battered: Battered) -> None:
    codes = {name: life.code for name, life in battered.lives.items()}
    assert codes == {
        "stopped": INTERRUPTED,
        "all terminated": INTERRUPTED,
        "controller killed": -signal.SIGKILL,
        "all killed": -signal.SIGKILL,
        "Ctrl-C": INTERRUPTED,
        "last": 0,
    }
    assert [life.err for life in battered.lives.values()] == [""] * len(codes)


def test_the_ledger_never_changes(battered: Battered, finished: Finished) -> None:
    undisturbed = (finished.folder / files.LEDGER_JSON).read_bytes()
    assert set(battered.ledgers) == {undisturbed}


@pytest.mark.fault(
    "controller killed at any moment", "SIGKILL at seeded moments; the same command resumes"
)
def test_no_episode_is_walked_twice_and_none_is_left_out(battered: Battered) -> None:
    for folder in trial_dirs(battered.folder):
        lines = files.read_lines(folder / files.EPISODES_JSONL)
        assert [(line["i"], line["attempt"]) for line in lines] == [(i, 0) for i in range(EPISODES)]


def test_no_trial_is_lost_or_repeated_and_the_study_knows_them_all(battered: Battered) -> None:
    folders = trial_dirs(battered.folder)
    assert len({files.read_json(f / files.SPEC_JSON)["fingerprint"] for f in folders}) == TRIALS
    results = [files.read_json(folder / files.RESULT_JSON) for folder in folders]
    assert [result["outcome"] for result in results] == ["complete"] * TRIALS
    path = str(shutil.copy(battered.folder / files.STUDY_LOG, battered.folder / "copy.log"))
    study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(path)))
    told = {trial.number for trial in study.trials if trial.state == TrialState.COMPLETE}
    assert told == {int(folder.name) for folder in folders}
    assert len(study.trials) == TRIALS


def test_trials_end_as_without_interruption(battered: Battered, finished: Finished) -> None:
    assert walks(battered.folder) == walks(finished.folder)


def test_who_presses_ctrl_c_is_told_how_to_go_on(battered: Battered) -> None:
    lines = battered.lives["Ctrl-C"].out.splitlines()
    assert lines[-2].startswith("interrupted: ")
    assert "the same command resumes" in lines[-2]
    assert lines[-1].startswith("  python -m duqsweep ")


def test_workers_that_outlive_their_controller_are_taken_up_again(battered: Battered) -> None:
    assert "re-attached" in battered.lives["all killed"].out
