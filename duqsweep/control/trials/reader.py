"""What a sweep's folder says about its trials, finished or still running."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from duqsweep import files
from duqsweep.categories import counts_by_category
from duqsweep.control.trial_status import TrialStatus
from duqsweep.errors import EvaluationError, SpecError
from duqsweep.result import (
    EpisodeRecord,
    SuccessCounts,
    Throughput,
    TrialResult,
    Vitals,
    final_attempts,
)
from duqsweep.spec import Trial

T = TypeVar("T")
# Keys without which job.json and a line of failures.jsonl are damaged.
JOB_KEYS = ("submitted_at", "attempts")
DEATH_KEYS = ("kind", "at_s")
REFERENCE = "reference"  # the plan of the unquantized policy
# Of each of `files.TRIAL_FILES` when it was written, in ns since 1970, and its size in bytes; None
# where it does not exist.
Signature = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class TrialView:
    """One trial as its files show it now."""

    trial: Trial
    vitals: Vitals | None  # None before the benchmark
    episodes: tuple[EpisodeRecord, ...]  # the last attempt of each ledger entry, in order
    result: TrialResult | None  # None while it runs
    started_ms: int  # since 1970; when its spec was written
    measured_ms: int | None  # when its vitals were written
    ended_ms: int | None  # when its result was written
    death: str | None = None  # how its last job died; None while one works on it
    status: TrialStatus | None = None  # None before the controller has taken it
    throughput: Throughput | None = None  # of its latest assignment; None before an episode ended
    signature: Signature = field(default=(), compare=False, repr=False)  # of the files read

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.trial.number

    @cached_property
    def mark(self) -> str:
        """Tells these files from any other state of them."""
        return mark_of(self.signature)

    @property
    def outcome(self) -> str:
        """complete, stopped or failed; without a result running, or open when its job died."""
        if self.result is not None:
            return self.result.outcome
        return "open" if self.death else "running"

    @cached_property
    def counts(self) -> SuccessCounts:
        """How the episodes ended that were played so far."""
        return SuccessCounts.of(self.episodes)

    @cached_property
    def categories(self) -> dict[str, SuccessCounts]:
        """The same for each category, in the suite's order; empty where it has none."""
        return counts_by_category(self.episodes, self.trial.spec.suite)

    @cached_property
    def steps_to_success(self) -> float | None:
        """Mean control steps of the successful episodes."""
        steps = [e.steps for e in self.episodes if e.success and e.error is None]
        return sum(steps) / len(steps) if steps else None


class TrialReader:
    """Reads a sweep's trials again and again; unchanged files are not parsed twice."""

    def __init__(self, sweep_dir: Path) -> None:
        self._trials_dir = sweep_dir / files.TRIALS_DIR
        self._seen: dict[str, TrialView] = {}
        self.damaged: dict[str, str] = {}  # folder → what `read` found wrong with it
        self.left_out: set[str] = set()  # folders that `read` did not have to read

    def read(self, marks: Mapping[str, str] = MappingProxyType({})) -> list[TrialView]:
        """Every trial that can be read, by number; the others are in `damaged`.

        Args:
            marks: Folder → `TrialView.mark` of trials that are known; while their files have it,
                they are left out, and are in `left_out`.
        """
        self.damaged.clear()
        self.left_out.clear()
        if not self._trials_dir.is_dir():
            return []
        folders = sorted(path for path in self._trials_dir.iterdir() if path.name.isdigit())
        views = []
        for folder in folders:
            if folder.name in marks and marks[folder.name] == mark_of(signature_of(folder)):
                self.left_out.add(folder.name)
                continue
            try:
                views.append(self._read_one(folder))
            except FileNotFoundError:  # a trial without spec.json has not begun
                continue
            except (EvaluationError, SpecError) as error:
                self.damaged[folder.name] = str(error)
        return sorted(views, key=lambda view: view.number)

    def known(self) -> list[TrialView]:
        """The same as they were when each was read last; the disk is not looked at again."""
        if not self._seen:
            return self.read()
        return sorted(list(self._seen.values()), key=lambda view: view.number)

    def view(self, number: int) -> TrialView:
        """One trial that has a spec; the same object as before where no file changed.

        Raises:
            EvaluationError: A file is not JSON.
            SpecError: A record holds an impossible value.
            FileNotFoundError: It has no spec.json.
        """
        return self._read_one(self._trials_dir / f"{number:04d}")

    def _read_one(self, folder: Path) -> TrialView:
        signature = signature_of(folder)
        known = self._seen.get(folder.name)
        if known is None or known.signature != signature:
            known = self._seen[folder.name] = read_trial(folder, signature)
        return known


def read_trials(sweep_dir: Path) -> list[TrialView]:
    """Every trial of a sweep's folder that has a spec, by number; see `TrialReader.read`."""
    return TrialReader(sweep_dir).read()


def read_trial(folder: Path, signature: Signature | None = None) -> TrialView:
    """One trial from its folder; see `TrialReader.read`.

    Args:
        folder: Of the trial.
        signature: Of its files, if it was just looked at; a file without one is not read.
    """
    signature = signature or signature_of(folder)
    written = dict(zip(files.TRIAL_FILES, signature, strict=True))

    def read(record: type[T], name: str) -> T | None:
        return files.read_record(record, folder / name) if written[name] else None

    episodes = files.read_records(EpisodeRecord, folder / files.EPISODES_JSONL)
    return TrialView(
        trial=files.read_record(Trial, folder / files.SPEC_JSON),
        vitals=read(Vitals, files.VITALS_JSON),
        episodes=tuple(final_attempts(episodes)),
        result=read(TrialResult, files.RESULT_JSON),
        started_ms=_written_ms(written[files.SPEC_JSON]) or 0,
        measured_ms=_written_ms(written[files.VITALS_JSON]),
        ended_ms=_written_ms(written[files.RESULT_JSON]),
        death=_death(folder) if written[files.FAILURES_JSONL] else None,
        status=read(TrialStatus, files.STATE_JSON),
        throughput=read(Throughput, files.THROUGHPUT_JSON),
        signature=signature,
    )


def signature_of(folder: Path) -> Signature:
    """Tells whether a file of a trial has changed."""
    return tuple(_signature(f"{folder}/{name}") for name in files.TRIAL_FILES)


def mark_of(signature: Signature) -> str:
    """A short form of a signature."""
    return hashlib.blake2b(repr(signature).encode(), digest_size=8).hexdigest()


def read_throughput(folder: Path) -> Throughput | None:
    """How fast a trial's latest assignment is or was played; None before an episode has ended."""
    path = folder / files.THROUGHPUT_JSON
    return files.read_record(Throughput, path) if path.exists() else None


def deaths_of(trial_dir: Path) -> list[dict[str, Any]]:
    """How jobs of a trial died, oldest first; empty for most."""
    return files.read_objects(trial_dir / files.FAILURES_JSONL, DEATH_KEYS)


def _death(folder: Path) -> str | None:
    """How the trial's last job died, if none was submitted since."""
    deaths = deaths_of(folder)
    if not deaths:
        return None
    path = folder / files.JOB_JSON
    job = files.read_object(path, JOB_KEYS) if path.exists() else None
    died_later = job is None or deaths[-1]["at_s"] >= job["submitted_at"]
    return str(deaths[-1]["kind"]) if died_later else None


def _written_ms(signature: tuple[int, int] | None) -> int | None:
    return None if signature is None else signature[0] // 1_000_000


def _signature(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size
