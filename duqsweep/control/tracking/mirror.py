"""A sweep's files copied to MLflow, again and again without a trace of the repetition.

Every run carries a key as a tag and is looked up before it is created; what it holds is not
written again, and would be a no-op for MLflow. Times come from the files, so that an emptied server
is rebuilt as it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.control.front.history import FrontHistory
from duqsweep.control.front.records import Front, FrontPoint, read_front
from duqsweep.control.tracking import runs, shared_view
from duqsweep.control.tracking.copied_runs import (
    ARTIFACTS_TAG,
    CopiedRun,
    CopiedRuns,
    has_moved,
)
from duqsweep.control.tracking.mlflow_client import default_uri, open_client
from duqsweep.control.tracking.refusals import refused_or_failed
from duqsweep.control.tracking.runids import remember_runs, sweep_key
from duqsweep.control.tracking.trial_files import put_files, stamp_of, trial_files
from duqsweep.control.tracking.unsynced import do_not_wait_for
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import Reference, sweep_reference
from duqsweep.errors import DuqsweepError, EvaluationError, SpecError
from duqsweep.fingerprint import digest
from duqsweep.locking import try_lock

log = logging.getLogger(__name__)

LEDGER_TAG = "duqsweep.ledger"  # digest of the ledger, which is the dataset of the parent run
NOTE_TAG = "mlflow.note.content"
ARTIFACTS = (
    files.REPORT_HTML,
    files.FRONT_PNG,
    files.FRONT_JSON,
    files.FRONT_CSV,
    files.SWEEP_YAML,
    files.LEDGER_JSON,
)
REFRESH_S = 30.0  # between two writings of what changes with every trial, at least
_REFRESH_SHARE = 20  # and so many times as long as the last one took, up to:
_LONGEST_REFRESH_S = 600.0
_PARENT_TAG = "mlflow.parentRunId"
_LOCK_POLL_S = 0.1


def mirror(sweep_dir: Path, uri: str | None = None) -> int:
    """Bring MLflow up to what the sweep's files say, once; returns the number of trials there.

    Args:
        sweep_dir: The sweep's folder.
        uri: MLflow's tracking URI; None: the database in the folder.

    Raises:
        ConfigError: The server or database refuses, and will do so again.
        DuqsweepError: The folder's database was made when the folder was elsewhere; or the server
            or database failed, was silent, or is of another version.
    """
    with ask_mlflow(uri or default_uri(sweep_dir)):
        return Mirror(sweep_dir, uri).update(final=True)


@contextmanager
def ask_mlflow(uri: str) -> Iterator[str]:
    """Give `uri` to a block; whatever MLflow raises in it becomes one line.

    Raises:
        ConfigError: The server or database refuses, and will do so again.
        DuqsweepError: It failed; the same may succeed later.
    """
    try:
        yield uri
    except DuqsweepError:
        raise
    except Exception as error:  # MLflow passes on whatever its stores raise
        raise refused_or_failed(uri, error) from error


@dataclass(frozen=True)
class _Source:
    """What a trial's record comes from. What did not change is the same object."""

    view: TrialView
    place: tuple[bool, str, float | None] | None  # on the front, state and p(front)
    reference: Reference | None

    @classmethod
    def of(cls, view: TrialView, point: FrontPoint | None, reference: Reference | None) -> _Source:
        """Of a trial and its point of the front; None before it has one."""
        place = (point.on_front, point.state, point.p_front) if point else None
        return cls(view, place, reference)

    def is_news(self, before: _Source) -> bool:
        """Whether a record is to be written at once after that of `before`."""
        if before.reference is not self.reference:
            return True
        if before.view is self.view:
            return False
        began = (before.view.vitals is None) != (self.view.vitals is None)
        ended = before.view.result is not self.view.result and self.view.outcome != "running"
        return began or ended

    def has_moved(self, before: _Source, exactly: bool) -> bool:
        """Whether anything has changed since `before`; if not exactly, p(front) by so much."""
        if before.view is not self.view:
            return True
        if exactly or before.place is None or self.place is None:
            return before.place != self.place
        return before.place[:2] != self.place[:2] or has_moved(before.place[2], self.place[2])


class Mirror:
    """One sweep's connection to MLflow; remembers what it has written, so updates are cheap."""

    def __init__(
        self, sweep_dir: Path, uri: str | None = None, reader: TrialReader | None = None
    ) -> None:
        """Nothing is connected yet.

        Args:
            sweep_dir: The sweep's folder.
            uri: MLflow's tracking URI; None: the database in the folder.
            reader: Of the sweep's trials, if one is there; a trial is then not kept twice.
        """
        self._dir = sweep_dir.absolute()
        self._uri = uri or default_uri(sweep_dir)
        self._reader = reader or TrialReader(self._dir)
        self._forget()

    def _forget(self) -> None:
        self._client: Any = None
        self._key = ""
        self._experiment = ""
        self._experiment_tags: dict[str, str] = {}  # that MLflow holds
        self._ledger: Any = None  # as a dataset; None: not looked at yet
        self._runs: CopiedRuns | None = None  # None: not connected
        self._parent: CopiedRun | None = None  # the sweep's own run
        self._reference: Reference | None = None
        self._waiting: set[int] = set()  # trials that have ended and whose end is not written
        self._described: dict[int, _Source] = {}  # trial → what its last record came from
        self._history = FrontHistory()
        self._due_s = -math.inf  # by the monotonic clock: no refreshment before

    def update(
        self,
        final: bool = False,
        changed: Collection[int] | None = None,
        front: Front | None = None,
    ) -> int:
        """Write what changed; returns the number of trials.

        Trials that began or ended are written at once. Places on the front, the progress of
        trials that run, the parent run and the files beside it change with every trial, so they
        are written every `REFRESH_S` seconds only. After an error the next call looks up anew what
        is there.

        Args:
            final: The controller has ended: everything is written, and the parent run ends when no
                trial runs.
            changed: Numbers of the trials with changed files; None: look at all.
            front: Of the sweep now; None: what front.json holds.
        """
        try:
            with _locked(self._dir):
                return self._update(final, changed, front)
        except BaseException:
            self._forget()  # a call that failed may have been carried out nevertheless
            raise

    def _update(self, final: bool, changed: Collection[int] | None, front: Front | None) -> int:
        views = self._views(None if self._runs is None else changed)
        if not views:
            return 0
        front = read_front(self._dir) if front is None else front
        begun_s = time.monotonic()
        refresh = final or begun_s >= self._due_s
        looks_at_all = refresh or changed is None
        if (reference := sweep_reference(self._dir)) != self._reference:
            self._reference, looks_at_all = reference, True
        if self._runs is None:
            self._key = sweep_key(self._dir)
            self._runs = self._connect()
        if refresh or self._parent is None:
            record = runs.sweep_record(self._dir.name, views, front, final, self._history)
            self._parent = self._runs.get(self._key, record, {})
            self._runs.bring(self._parent, record, {})
        points = {point.trial: point for point in front.points} if front else {}
        for view in views if looks_at_all else self._telling(views, changed or ()):
            source = _Source.of(view, points.get(view.number), self._reference)
            self._write_trial(source, points.get(view.number), self._parent.id, refresh, final)
        if refresh:
            self._upload(self._parent)
            self._note_ledger(self._parent)
            if front is not None:
                self._share_view(front, self._parent.id, record.started_ms)
            self._remember_runs(self._parent.id)
            ended_s = time.monotonic()
            pause_s = min(_REFRESH_SHARE * (ended_s - begun_s), _LONGEST_REFRESH_S)
            self._due_s = ended_s + max(REFRESH_S, pause_s)
        return len(views)

    def _telling(self, views: Sequence[TrialView], changed: Collection[int]) -> list[TrialView]:
        """Those that changed, that run, or whose end waits for the front that has its point."""
        numbers = self._waiting.union(changed)
        return [view for view in views if view.result is None or view.number in numbers]

    def _write_trial(
        self,
        source: _Source,
        point: FrontPoint | None,
        parent_id: str,
        refresh: bool,
        final: bool,
    ) -> None:
        """Write a trial's run, unless nothing has changed that is worth it."""
        view, before = source.view, self._described.get(source.view.number)
        self._waiting.discard(view.number)
        if view.result is not None and point is None and not refresh:
            self._waiting.add(view.number)
            return  # the front that has its point follows in a moment, and both are one writing
        if (
            before is not None
            and not source.is_news(before)
            and not (refresh and source.has_moved(before, exactly=final))
        ):
            return
        assert self._runs is not None
        record = runs.trial_record(view, point, source.reference)
        paths = trial_files(self._dir, view.number) if view.result is not None else []
        artifacts = {ARTIFACTS_TAG: stamp_of(paths)} if paths else {}
        stamps = {_PARENT_TAG: parent_id, **artifacts, **(self._ledger_tag() if paths else {})}
        run = self._runs.get(f"{self._key}/{view.number}", record, stamps)
        if not run.has(artifacts):
            self._put(run, paths)
        is_exact = final or before is not None
        self._runs.bring(run, record, stamps, is_exact)
        self._described[view.number] = source

    def _views(self, changed: Collection[int] | None) -> list[TrialView]:
        """All trials, by number; only those that changed or run are looked at again."""
        if changed is None:
            return self._reader.read()
        running = {view.number for view in self._reader.known() if view.result is None}
        for number in running.union(changed):
            with suppress(EvaluationError, SpecError, FileNotFoundError):  # the loop mends it
                self._reader.view(number)
        return self._reader.known()

    def _remember_runs(self, parent_id: str) -> None:
        assert self._runs is not None
        ids_by_key = self._runs.ids().items()
        trials = {key.rpartition("/")[2]: run_id for key, run_id in ids_by_key if "/" in key}
        ids = {"experiment": self._experiment, "parent": parent_id, "trials": trials}
        view = shared_view.view_key(self._key)
        if f"{shared_view.TAG}{view}" in self._experiment_tags:
            ids["view"] = view
        remember_runs(self._dir, self._uri, ids)

    def _connect(self) -> CopiedRuns:
        local = self._uri == default_uri(self._dir)
        if local:
            do_not_wait_for(self._dir / files.MLFLOW_DB)
        client = open_client(self._uri)
        name = f"duqsweep/{self._dir.name}"
        artifacts = (self._dir / files.MLFLOW_ARTIFACTS).as_uri() if local else None
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            self._experiment = client.create_experiment(name, artifact_location=artifacts)
        else:
            self._experiment = experiment.experiment_id
            self._experiment_tags = dict(experiment.tags)
            if local and experiment.artifact_location != artifacts:
                raise DuqsweepError(
                    f"{files.MLFLOW_DB} was made for {experiment.artifact_location}, this folder "
                    f"has moved: delete {self._dir / files.MLFLOW_DB} and sync again"
                )
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(self._experiment)
        self._client = client
        return CopiedRuns(client, self._experiment, self._key)

    def _share_view(self, front: Front, parent_id: str, started_ms: int) -> None:
        """Let the experiment say what the sweep found, and open on its front."""
        view = shared_view.view_tag(front, parent_id, started_ms)
        tags = {
            NOTE_TAG: runs.experiment_note(front),
            f"{shared_view.TAG}{shared_view.view_key(self._key)}": view,
        }
        for key, value in tags.items():
            if self._experiment_tags.get(key) != value:
                self._client.set_experiment_tag(self._experiment, key, value)
                self._experiment_tags[key] = value

    def _ledger_tag(self) -> dict[str, str]:
        """Says which ledger a run was evaluated on; nothing where there is none."""
        if self._ledger is None:
            self._ledger = ledger_dataset(self._dir)
        return {} if self._ledger is None else {LEDGER_TAG: self._ledger.digest}

    def _note_ledger(self, parent: CopiedRun) -> None:
        """Add the ledger as the parent's dataset; MLflow takes long to add it to each trial."""
        from mlflow.entities import DatasetInput, InputTag

        assert self._runs is not None
        tag = self._ledger_tag()
        if not parent.has(tag):
            context = InputTag("mlflow.data.context", "evaluation")
            datasets = [DatasetInput(self._ledger, [context])]
            self._client.log_inputs(parent.id, datasets=datasets)
            self._runs.tag(parent, tag)

    def _upload(self, parent: CopiedRun) -> None:
        assert self._runs is not None
        paths = [path for name in ARTIFACTS if (path := self._dir / name).exists()]
        content = digest({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths})
        if not parent.has({ARTIFACTS_TAG: content}):
            self._put(parent, paths)
            self._runs.tag(parent, {ARTIFACTS_TAG: content})

    def _put(self, run: CopiedRun, paths: list[Path]) -> None:
        put_files(paths, run.artifacts, lambda folder: self._client.log_artifacts(run.id, folder))


def ledger_dataset(sweep_dir: Path) -> Any:
    """A sweep's ledger as MLflow's Dataset; None where there is no ledger."""
    from mlflow.entities import Dataset

    path = sweep_dir / files.LEDGER_JSON
    if not path.exists():
        return None
    entries = files.read_json(path)
    return Dataset(
        name=f"{sweep_dir.name} ledger",
        digest=digest(entries),
        source_type="local",
        source=json.dumps({"uri": files.LEDGER_JSON, "of": sweep_dir.name}),
        profile=json.dumps({"episodes": len(entries)}),
    )


@contextmanager
def _locked(sweep_dir: Path) -> Iterator[None]:
    """One mirror of a sweep at a time, in whatever process."""
    path = sweep_dir / ".tracking.lock"
    with path.open("w") as file:
        while not try_lock(file.fileno(), path):
            time.sleep(_LOCK_POLL_S)
        yield
