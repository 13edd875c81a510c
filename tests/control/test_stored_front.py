"""What front.json still answers is the same as what the trials' files answer anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_sweep import (
    OBJECTIVES,
    make_episodes,
    make_trial,
    make_vitals,
    write_complete,
    write_sweep,
    write_trial,
)

from duqsweep import cli, files
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.confirmation import confirmation
from duqsweep.control.front.beliefs import Belief, Beliefs, write_beliefs
from duqsweep.control.front.content import compute_front, look_at
from duqsweep.control.front.factors import TWINS_DIR
from duqsweep.control.front.importance import Importance, read_importances, write_importances
from duqsweep.control.front.reserved import CONFIRM_DIR, CONFIRM_JSON
from duqsweep.control.sweep_files import FrontFiles
from duqsweep.control.trials import reader as trials_reader
from duqsweep.control.trials.reader import read_trials
from duqsweep.errors import ConfigError
from duqsweep.verbs.folder import keep_explained_front, sweep_config, sweep_look

TRIALS = 16
STATUS = (["status"], ["status", "--json"])
RUNNING = TRIALS - 1


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose controller has just written the front; one trial still runs."""
    folder = write_sweep(tmp_path_factory.mktemp("sweep") / "dit_speed", TRIALS, episodes=12)
    config = compose(["+sweep=dit_speed", f"dir={folder}"])
    files.write_text(folder / files.SWEEP_YAML, config.yaml)
    FrontFiles(folder, OBJECTIVES).update(read_trials(folder), final=True)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    copy = tmp_path / written.name
    shutil.copytree(written, copy)  # with the times of the files
    return copy


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of the trials whose files were read."""
    found: list[str] = []
    read_trial = trials_reader.read_trial

    def noted(folder: Path, *rest):
        found.append(folder.name)
        return read_trial(folder, *rest)

    monkeypatch.setattr(trials_reader, "read_trial", noted)
    return found


def append_episode(folder: Path, number: int, success: bool) -> None:
    path = files.trial_dir(folder, number) / files.EPISODES_JSONL
    record = json.loads(path.read_text().splitlines()[-1])
    files.append_line(path, record | {"i": record["i"] + 1, "success": success})


def edit(path: Path, **values) -> None:
    files.write_json(path, files.read_json(path) | values)


def trial_file(folder: Path, number: int, name: str) -> Path:
    return files.trial_dir(folder, number) / name


def a_new_trial_runs(folder: Path) -> None:
    trial = make_trial(TRIALS, 8, 4)
    write_trial(folder, trial, make_vitals(trial, 1.4), make_episodes(TRIALS, 3, 0.9))


def confirm(folder: Path) -> None:
    for number in (0, 2):
        write_complete(folder / CONFIRM_DIR, make_trial(number, 4), 1.0, 0.9, 60)
    found = confirmation(folder / CONFIRM_DIR, reference=0)
    files.write_json(folder / CONFIRM_DIR / CONFIRM_JSON, found.to_json())


# What may happen without the front being written, and how many trials are read after it.
QUICK: dict[str, tuple[Callable[[Path], None], int]] = {
    "nothing": (lambda folder: None, 1),
    "the running trial plays on": (lambda folder: append_episode(folder, RUNNING, False), 1),
    "another trial runs": (a_new_trial_runs, 2),
    "the running trial's job dies": (
        lambda folder: files.append_line(
            trial_file(folder, RUNNING, files.FAILURES_JSONL), {"kind": "crash", "at_s": 2e9}
        ),
        1,
    ),
}
ANEW: dict[str, Callable[[Path], None]] = {
    "a result changes": lambda folder: edit(
        trial_file(folder, 3, files.RESULT_JSON), outcome="stopped"
    ),
    "a benchmark changes": lambda folder: edit(
        trial_file(folder, 4, files.VITALS_JSON), weights_mb=1.5
    ),
    "a finished trial plays on": lambda folder: append_episode(folder, 5, False),
    "a trial ends": lambda folder: write_complete(folder, make_trial(TRIALS, 8, 1), 4.0, 0.99, 12),
    "a trial is deleted": lambda folder: shutil.rmtree(files.trial_dir(folder, 6)),
    "a trial is damaged": lambda folder: trial_file(folder, 6, files.VITALS_JSON).write_text("{"),
    "the reference changes": lambda folder: edit(folder / files.REFERENCE_JSON, call_ms=80.0),
    "a model writes beliefs": lambda folder: write_beliefs(
        folder, Beliefs({str(number): Belief(0.9, 0.02) for number in range(TRIALS - 3)})
    ),
    "a twin is timed": lambda folder: write_trial(
        folder / TWINS_DIR, make_trial(0, 16, 3), make_vitals(make_trial(0, 16, 3), 2.0)
    ),
    "the front is confirmed": confirm,
    "importances are computed": lambda folder: write_importances(
        folder, [Importance("policy.num_steps", 0.5, 0.3, 0.7)]
    ),
    "front.json is edited": lambda folder: edit(folder / files.FRONT_JSON, hypervolume=1e6),
    "front.json is torn": lambda folder: (folder / files.FRONT_JSON).write_text('{"sweep": '),
    "the sources are torn": lambda folder: (folder / files.FRONT_SOURCES_JSON).write_text("{"),
    "the reference is missing": lambda folder: (folder / files.REFERENCE_JSON).unlink(),
}


@pytest.mark.parametrize("what", QUICK)
def test_a_front_that_still_holds_is_not_computed_anew(what, folder, read, monkeypatch) -> None:
    happens, trials_read = QUICK[what]
    happens(folder)
    anew = compute_front(folder, OBJECTIVES)
    read.clear()
    monkeypatch.setattr("duqsweep.control.front.content.FrontBuilder", None)
    assert look_at(folder, OBJECTIVES).front == anew
    assert len(read) == trials_read


@pytest.mark.fault(
    "front.sources.json damaged, or a trial changed after the front was written",
    "`status` and `front` compute the front anew",
)
@pytest.mark.parametrize("what", ANEW)
def test_a_front_that_is_outdated_is_computed_anew(what, folder) -> None:
    ANEW[what](folder)
    look = look_at(folder, OBJECTIVES)
    assert look.front == compute_front(folder, OBJECTIVES)
    assert not look.points


def test_another_margin_or_another_objective_is_another_front(folder: Path) -> None:
    for objectives, margin in ((OBJECTIVES, 0.2), (OBJECTIVES[:1], 0.05)):
        look = look_at(folder, objectives, margin)
        assert look.front == compute_front(folder, objectives, margin=margin)


def test_the_reference_that_still_plays_decides_on_the_verdict(folder: Path) -> None:
    trial_file(folder, 0, files.RESULT_JSON).unlink()
    FrontFiles(folder, OBJECTIVES).update(read_trials(folder), final=True)
    append_episode(folder, 0, False)
    assert look_at(folder, OBJECTIVES).front == compute_front(folder, OBJECTIVES)


@pytest.mark.parametrize("what", ["another trial runs", "a trial is damaged"])
def test_status_says_the_same_with_and_without_what_is_stored(what, folder, capsys) -> None:
    (QUICK[what][0] if what in QUICK else ANEW[what])(folder)
    said = []
    for words in STATUS:
        assert cli.main([*words, str(folder)]) == 0
        said.append(capsys.readouterr())
    (folder / files.FRONT_SOURCES_JSON).unlink()
    for words in reversed(STATUS):
        assert cli.main([*words, str(folder)]) == 0
        assert capsys.readouterr() == said.pop()


def test_importances_are_kept_by_whoever_writes_the_front_next(folder: Path, monkeypatch) -> None:
    config = sweep_config(folder)
    views = read_trials(folder)
    front = keep_explained_front(config, views)
    assert len(front.importances) > 2
    assert read_importances(folder) == front.importances
    before = (folder / files.FRONT_JSON).read_bytes()
    FrontFiles(folder, OBJECTIVES, margin=config.margin).update(views, final=True)
    assert (folder / files.FRONT_JSON).read_bytes() == before
    monkeypatch.setattr("duqsweep.control.front.content.FrontBuilder", None)
    assert sweep_look(config).front == front  # not computed anew


def test_importances_of_another_version_are_named(folder: Path) -> None:
    (folder / files.IMPORTANCES_JSON).write_text("[]")
    with pytest.raises(ConfigError, match=r"importances.json is of another version.*delete it"):
        compute_front(folder, OBJECTIVES)
    write_importances(folder, ())
    assert not (folder / files.IMPORTANCES_JSON).exists()
