"""Sweeps whose worker is a stub: it plays a trial within one poll, from where its files end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stub_trials import episode_of, vitals_of

from duqsweep import files
from duqsweep.assignment import Assignment, Ended, failure
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig, compose
from duqsweep.control.dispatch.jobfile import note_submission
from duqsweep.errors import DuqsweepError
from duqsweep.spec import Trial
from duqsweep.verbs import sweep as verb
from duqsweep.worker.ledger import read_ledger
from duqsweep.worker.summary import SavedProgress, summarise

TRIALS, EPISODES = 4, 3


class StubDispatcher:
    """See `Dispatcher`."""

    capacity = 2

    def __init__(self, sweep_dir: Path) -> None:
        self._dir = sweep_dir
        self._pending: list[Assignment] = []
        self._part = ""
        self.played: list[tuple[int, int]] = []  # trial, ledger position

    def turn_to(self, part: str) -> None:
        self._part = part

    def submit(self, assignment: Assignment) -> None:
        assignment = replace(assignment, part=self._part)
        note_submission(self._dir, assignment, "stub", None, 0, None)
        self._pending.append(assignment)

    def pending(self) -> list[Assignment]:
        return list(self._pending)

    def reattach(self) -> list[Assignment]:
        return []

    def poll(self) -> list[Ended]:
        ended = [Ended(one, self.evaluate(one)) for one in self._pending]
        self._pending.clear()
        return ended

    def evaluate(self, assignment: Assignment):
        folder = assignment.folder(self._dir)
        try:
            read_ledger(self._dir / assignment.part / files.LEDGER_JSON)
            progress = SavedProgress.read(folder)
            trial = Trial.from_json(files.read_json(folder / files.SPEC_JSON))
        except DuqsweepError as error:
            return failure("node", str(error))
        if progress.vitals is None:
            files.write_json(folder / files.VITALS_JSON, vitals_of(trial).to_json())
        for i in range(assignment.until_episode):
            if i not in progress.finished:
                self.played.append((assignment.trial, i))
                files.append_line(folder / files.EPISODES_JSONL, episode_of(trial, i).to_json())
        records = SavedProgress.read(folder).episodes
        result = summarise(records, "complete", f"played {len(records)} episodes")
        files.write_json(folder / files.RESULT_JSON, result.to_json())
        return None

    def stop(self, trial: int, reason: str) -> None:
        self._pending = [one for one in self._pending if one.trial != trial]

    def close(self, end_jobs: bool) -> int:
        return 0


def config_for(folder: Path, *more: str) -> SweepConfig:
    return compose(
        [
            "name=odd",
            f"dir={folder}",
            "+space={quant.weight_bits.default:'choice(2,3,4,8)',"
            "policy.num_steps:'int(interval(1,10))'}",
            "quant.include=dit_all",
            "enqueue=[reference]",
            "sampler=random",
            "tracking=none",
            "launcher=inline",
            f"budget.trials={TRIALS}",
            f"budget.episodes_per_trial={EPISODES}",
            *more,
        ]
    )


def make_light(monkeypatch: pytest.MonkeyPatch, draws: bool = False) -> None:
    """No waiting, no disk's own time, the stub instead of workers; no report unless `draws`."""
    if not draws:
        monkeypatch.setattr("duqsweep.control.report.report.write_report", lambda *args: None)
    monkeypatch.setattr("duqsweep.control.sweep.TICK_S", 0.0)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    opened = "duqsweep.control.dispatch.dispatcher.open_dispatcher"
    monkeypatch.setattr(opened, lambda launcher, sweep_dir: StubDispatcher(sweep_dir))


def run(config: SweepConfig) -> StubDispatcher:
    config.directory.mkdir(parents=True, exist_ok=True)
    started = verb._Run(config, Space.from_config(config))
    assert started.main() == 0
    dispatcher: Any = started._dispatcher
    return dispatcher


def finish(folder: Path, *more: str, draws: bool = False) -> tuple[SweepConfig, Path]:
    """A configuration, and the finished folder that it left, in another place: see `copied`."""
    config = config_for(folder, *more)
    with pytest.MonkeyPatch.context() as patch:
        make_light(patch, draws)
        run(config)
    kept = folder.with_name("kept")
    folder.rename(kept)
    return config, kept


def copied(finished: tuple[SweepConfig, Path]) -> SweepConfig:
    """A configuration whose folder is a fresh copy of the finished one, to be changed."""
    config, kept = finished
    shutil.rmtree(config.directory, ignore_errors=True)
    shutil.copytree(kept, config.directory)
    return config


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def spoil_the_middle(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + b"\x00\xff{garbage" + content[middle + 9 :])


def make_foreign(path: Path) -> None:
    line = json.dumps({"format": 99, "of": "another version"}) + "\n"
    path.write_text(line)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "garbage in the middle": spoil_the_middle,
    "missing": Path.unlink,
    "other version": make_foreign,
}
