"""A sweep's files copied to MLflow, again and again without a trace of the repetition.

Every run carries a key as a tag and is looked up before it is created; equal parameters, tags and
metrics (same step, same timestamp) are no-ops for MLflow. Times come from the files, so that an
emptied server is rebuilt as it was.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.control.front.history import FrontHistory
from duqsweep.control.front.records import Front, FrontPoint, read_front
from duqsweep.control.tracking import runs, shared_view
from duqsweep.control.tracking.mlflow_client import default_uri, open_client
from duqsweep.control.tracking.runids import remember_runs, sweep_key
from duqsweep.control.tracking.runs import RunRecord
from duqsweep.control.tracking.trial_files import gathered, stamp_of, trial_files
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import Reference, sweep_reference
from duqsweep.errors import DuqsweepError, EvaluationError, SpecError
from duqsweep.fingerprint import digest
from duqsweep.locking import try_lock
from duqsweep.masking import masked

log = logging.getLogger(__name__)

KEY_TAG = "duqsweep.key"  # of one run: <sweep key>, or <sweep key>/<trial>
SYNCED_TAG = "duqsweep.synced"  # digest of what was written last
ARTIFACTS_TAG = "duqsweep.artifacts"  # digest of the files beside a run
LEDGER_TAG = "duqsweep.ledger"  # digest of the ledger that is its dataset
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
_BATCH = 800  # metrics per call; MLflow takes 1,000 metrics, parameters and tags together
_PAGE = 1000


def mirror(sweep_dir: Path, uri: str | None = None) -> int:
    """Bring MLflow up to what the sweep's files say, once; returns the number of trials there.

    Args:
        sweep_dir: The sweep's folder.
        uri: MLflow's tracking URI; None: the database in the folder.

    Raises:
        DuqsweepError: The folder's database was made when the folder was elsewhere; or the server
            or database refused, was not reached, or is of another version.
    """
    with ask_mlflow(uri or default_uri(sweep_dir)):
        return Mirror(sweep_dir, uri).update(final=True)


@contextmanager
def ask_mlflow(uri: str) -> Iterator[str]:
    """Give `uri` to a block; whatever MLflow raises in it becomes DuqsweepError, in one line."""
    try:
        yield uri
    except DuqsweepError:
        raise
    except Exception as error:  # MLflow passes on whatever its stores raise
        said = masked(" ".join(str(error).split())[:300]) or type(error).__name__
        raise DuqsweepError(f"MLflow at {masked(uri)} cannot take the copy: {said}") from error


@dataclass
class _Run:
    """What MLflow holds of a run, as far as it is known."""

    id: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: tuple[Any, ...] = ()  # that this process has written
    ended_ms: int | None = None


@dataclass(frozen=True)
class _Source:
    """What a trial's record comes from. What did not change is the same object."""

    view: TrialView
    point: FrontPoint | None
    reference: Reference | None

    def needs_writing(self, before: _Source | None, refresh: bool) -> bool:
        """Whether a record is to be written after that of `before`."""
        if before is None or before.reference != self.reference:
            return True
        if before.view is self.view and before.point is self.point:
            return False
        began = (before.view.vitals is None) != (self.view.vitals is None)
        ended = before.view.result is not self.view.result and self.view.outcome != "running"
        return refresh or began or ended


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
        self._runs: dict[str, _Run] = {}  # by key
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
        trials that run and the files beside the parent run change with every trial, so they are
        written every `REFRESH_S` seconds only. After an error the next call looks up anew what is
        there.

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
        views = self._views(None if self._client is None else changed)
        if not views:
            return 0
        front = read_front(self._dir) if front is None else front
        reference = sweep_reference(self._dir)
        if self._client is None:
            self._key = sweep_key(self._dir)
            self._connect()
        points = {point.trial: point for point in front.points} if front else {}
        begun_s = time.monotonic()
        refresh = final or begun_s >= self._due_s
        parent = runs.sweep_record(self._dir.name, views, front, final, self._history)
        parent_id = self._write(self._key, parent, {})
        for view in views:
            source = _Source(view, points.get(view.number), reference)
            if source.needs_writing(self._described.get(view.number), refresh):
                record = runs.trial_record(view, source.point, reference)
                run_id = self._write(f"{self._key}/{view.number}", record, {_PARENT_TAG: parent_id})
                self._described[view.number] = source
                if view.result is not None:
                    self._upload_trial(f"{self._key}/{view.number}", run_id, view.number)
        if refresh:
            self._upload(parent_id)
            self._note_ledger(self._key, parent_id)
            if front is not None:
                self._share_view(front, parent_id, parent.started_ms)
            self._remember_runs(parent_id)
            ended_s = time.monotonic()
            pause_s = min(_REFRESH_SHARE * (ended_s - begun_s), _LONGEST_REFRESH_S)
            self._due_s = ended_s + max(REFRESH_S, pause_s)
        return len(views)

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
        trials = {
            name.rpartition("/")[2]: run.id for name, run in self._runs.items() if "/" in name
        }
        ids = {"experiment": self._experiment, "parent": parent_id, "trials": trials}
        view = shared_view.view_key(self._key)
        if f"{shared_view.TAG}{view}" in self._experiment_tags:
            ids["view"] = view
        remember_runs(self._dir, self._uri, ids)

    def _connect(self) -> None:
        client = open_client(self._uri)
        name = f"duqsweep/{self._dir.name}"
        local = self._uri == default_uri(self._dir)
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
        self._find_runs()

    def _find_runs(self) -> None:
        """Look up every run of this sweep; of two with one key (a lost answer) the older stays."""
        wanted = f"tags.`{KEY_TAG}` LIKE '{sweep_key(self._dir)}%'"
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                wanted,
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                key = run.data.tags[KEY_TAG]
                if key in self._runs:
                    self._client.delete_run(run.info.run_id)
                    continue
                data = run.data
                self._runs[key] = _Run(
                    run.info.run_id,
                    run.info.status,
                    data.tags,
                    data.params,
                    ended_ms=run.info.end_time,
                )
            token = page.token
            if not token:
                return

    def _write(self, key: str, record: RunRecord, tags: Mapping[str, str]) -> str:
        """Find or create the run of `key` and bring it to `record`; returns its id."""
        tags = {**record.tags, **tags, KEY_TAG: key}
        run = self._runs.get(key)
        if run is None:
            created = self._client.create_run(
                self._experiment, start_time=record.started_ms, tags=tags, run_name=record.name
            )
            run = self._runs[key] = _Run(created.info.run_id, "RUNNING", tags, {})
            if not record.metrics and record.status == "RUNNING":
                return run.id  # its parameters come with its first numbers
        stamp = record.digest(tags)
        if run.tags.get(SYNCED_TAG) == stamp:
            return run.id
        if record.status == "RUNNING" and run.status != "RUNNING":
            self._client.update_run(run.id, status="RUNNING")
        elif record.status != "RUNNING" and (
            (record.status, record.ended_ms) != (run.status, run.ended_ms)
        ):
            self._client.set_terminated(run.id, record.status, record.ended_ms)
        run.status, run.ended_ms = record.status, record.ended_ms
        self._log(run, record, {**tags, SYNCED_TAG: stamp})
        return run.id

    def _log(self, run: _Run, record: RunRecord, tags: Mapping[str, str]) -> None:
        """Write what the run does not have yet; its digest comes last."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = record.metrics
        begins = metrics[: len(run.metrics)] == run.metrics
        fresh = metrics[len(run.metrics) :] if begins else metrics
        *whole, last = [fresh[i : i + _BATCH] for i in range(0, max(1, len(fresh)), _BATCH)]
        for batch in whole:
            self._client.log_batch(run.id, metrics=[Metric(*metric) for metric in batch])
        new_tags = [RunTag(*item) for item in tags.items() if item not in run.tags.items()]
        params = [Param(*item) for item in record.params.items() if item[0] not in run.params]
        metrics_left = [Metric(*metric) for metric in last]
        self._client.log_batch(run.id, metrics=metrics_left, params=params, tags=new_tags)
        run.metrics, run.params, run.tags = metrics, record.params, {**run.tags, **tags}

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

    def _note_ledger(self, key: str, run_id: str) -> None:
        """The ledger, as the dataset that the run was evaluated on."""
        from mlflow.entities import DatasetInput, InputTag

        if self._ledger is None:
            self._ledger = ledger_dataset(self._dir)
        known = self._runs[key]
        if self._ledger is None or known.tags.get(LEDGER_TAG) == self._ledger.digest:
            return
        context = InputTag("mlflow.data.context", "evaluation")
        self._client.log_inputs(run_id, datasets=[DatasetInput(self._ledger, [context])])
        self._tag(key, LEDGER_TAG, self._ledger.digest)

    def _tag(self, key: str, name: str, value: str) -> None:
        run = self._runs[key]
        self._client.set_tag(run.id, name, value)
        run.tags = {**run.tags, name: value}

    def _upload_trial(self, key: str, run_id: str, number: int) -> None:
        """The files of a trial that has ended, unless they are there."""
        self._note_ledger(key, run_id)
        paths = trial_files(self._dir, number)
        stamp = stamp_of(paths)
        if self._runs[key].tags.get(ARTIFACTS_TAG) == stamp:
            return
        with gathered(paths) as folder:
            self._client.log_artifacts(run_id, str(folder))
        self._tag(key, ARTIFACTS_TAG, stamp)

    def _upload(self, parent_id: str) -> None:
        paths = [path for name in ARTIFACTS if (path := self._dir / name).exists()]
        stamp = digest({path.name: path.read_bytes().hex() for path in paths})
        if self._runs[self._key].tags.get(ARTIFACTS_TAG) == stamp:
            return
        for path in paths:
            if path.name == files.SWEEP_YAML:  # it may hold a password
                text = masked(path.read_text(encoding="utf-8"))
                self._client.log_text(parent_id, text, path.name)
            else:
                self._client.log_artifact(parent_id, str(path))
        self._tag(self._key, ARTIFACTS_TAG, stamp)


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
