"""A sweep's files copied to MLflow, again and again without a trace of the repetition.

Every run carries a key as a tag and is looked up before it is created; equal parameters, tags and
metrics (same step, same timestamp) are no-ops for MLflow. Times come from the files, so that an
emptied server is rebuilt as it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.control.front.records import read_front
from duqsweep.control.tracking import runs
from duqsweep.control.tracking.mlflow_client import check_database, default_uri, import_client
from duqsweep.control.tracking.runids import remember_runs, sweep_key
from duqsweep.control.tracking.runs import RunRecord
from duqsweep.control.trials.reader import TrialReader
from duqsweep.control.trials.reference import sweep_reference
from duqsweep.errors import DuqsweepError
from duqsweep.fingerprint import digest
from duqsweep.locking import try_lock
from duqsweep.masking import masked

log = logging.getLogger(__name__)

KEY_TAG = "duqsweep.key"  # of one run: <sweep key>, or <sweep key>/<trial>
SYNCED_TAG = "duqsweep.synced"  # digest of what was written last
ARTIFACTS_TAG = "duqsweep.artifacts"  # digest of the files beside the parent run
ARTIFACTS = (
    files.REPORT_HTML,
    files.FRONT_PNG,
    files.FRONT_JSON,
    files.FRONT_CSV,
    files.SWEEP_YAML,
    files.LEDGER_JSON,
)
_LOCK_POLL_S = 0.1
_BATCH = 1000  # metrics per call, MLflow's own limit
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
    try:
        return Mirror(sweep_dir, uri).update(final=True)
    except DuqsweepError:
        raise
    except Exception as error:  # MLflow passes on whatever its stores raise
        said = masked(" ".join(str(error).split())[:300]) or type(error).__name__
        where = masked(uri or default_uri(sweep_dir))
        raise DuqsweepError(f"MLflow at {where} cannot take the copy: {said}") from error


class Mirror:
    """One sweep's connection to MLflow; remembers what it has written, so updates are cheap."""

    def __init__(self, sweep_dir: Path, uri: str | None = None) -> None:
        self._dir = sweep_dir.absolute()
        self._uri = uri or default_uri(sweep_dir)
        self._reader = TrialReader(self._dir)
        self._forget()

    def _forget(self) -> None:
        self._client: Any = None
        self._experiment = ""
        self._run_ids: dict[str, str] = {}  # key → run
        self._synced: dict[str, str] = {}  # key → digest
        self._written: dict[str, set[tuple[Any, ...]]] = {}  # key → metrics of this process
        self._uploaded = ""  # digest of the artifacts
        self._described: dict[int, tuple[Any, ...]] = {}  # trial → what its last record came from

    def update(self, final: bool = False) -> int:
        """Write whatever changed; returns the number of trials.

        After an error the next call looks up anew what is there.

        Args:
            final: The controller has ended: the parent run ends when no trial runs.
        """
        try:
            with _locked(self._dir):
                return self._update(final)
        except BaseException:
            self._forget()  # a call that failed may have been carried out nevertheless
            raise

    def _update(self, final: bool) -> int:
        views = self._reader.read()
        if not views:
            return 0
        front = read_front(self._dir)
        reference = sweep_reference(self._dir)
        key = sweep_key(self._dir)
        if self._client is None:
            self._connect()
        points = {point.trial: point for point in front.points} if front else {}
        parent = runs.sweep_record(self._dir.name, views, front, final)
        parent_id = self._write(key, parent, {})
        for view in views:
            source = (view, points.get(view.number), reference)
            if self._described.get(view.number) == source:
                continue
            tags = {"mlflow.parentRunId": parent_id}
            self._write(f"{key}/{view.number}", runs.trial_record(*source), tags)
            self._described[view.number] = source
        self._upload(parent_id)
        trials = {
            name.rpartition("/")[2]: run_id for name, run_id in self._run_ids.items() if "/" in name
        }
        ids = {"experiment": self._experiment, "parent": parent_id, "trials": trials}
        remember_runs(self._dir, self._uri, ids)
        return len(views)

    def _connect(self) -> None:
        check_database(self._uri)
        mlflow_client = import_client()
        client = mlflow_client(tracking_uri=self._uri)
        name = f"duqsweep/{self._dir.name}"
        local = self._uri == default_uri(self._dir)
        artifacts = (self._dir / files.MLFLOW_ARTIFACTS).as_uri() if local else None
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            self._experiment = client.create_experiment(name, artifact_location=artifacts)
        else:
            self._experiment = experiment.experiment_id
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
                if key in self._run_ids:
                    self._client.delete_run(run.info.run_id)
                    continue
                self._run_ids[key] = run.info.run_id
                self._synced[key] = run.data.tags.get(SYNCED_TAG, "")
                self._uploaded = run.data.tags.get(ARTIFACTS_TAG, self._uploaded)
            token = page.token
            if not token:
                return

    def _write(self, key: str, record: RunRecord, tags: Mapping[str, str]) -> str:
        """Find or create the run of `key` and bring it to `record`; returns its id."""
        tags = {**record.tags, **tags, KEY_TAG: key}
        stamp = digest([record.to_json(), tags])
        run_id = self._run_ids.get(key)
        if run_id is None:
            run = self._client.create_run(
                self._experiment, start_time=record.started_ms, tags=tags, run_name=record.name
            )
            run_id = self._run_ids[key] = run.info.run_id
        elif self._synced.get(key) == stamp:
            return run_id
        self._log(key, run_id, record, tags)
        if record.status == "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        else:
            self._client.set_terminated(run_id, record.status, record.ended_ms)
        self._client.set_tag(run_id, SYNCED_TAG, stamp)
        self._synced[key] = stamp
        return run_id

    def _log(self, key: str, run_id: str, record: RunRecord, tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        written = self._written.setdefault(key, set())
        fresh = [metric for metric in record.metrics if metric not in written]
        self._client.log_batch(
            run_id,
            metrics=[Metric(*metric) for metric in fresh[:_BATCH]],
            params=[Param(*item) for item in record.params.items()],
            tags=[RunTag(*item) for item in tags.items()],
        )
        for start in range(_BATCH, len(fresh), _BATCH):
            batch = fresh[start : start + _BATCH]
            self._client.log_batch(run_id, metrics=[Metric(*metric) for metric in batch])
        written.update(fresh)

    def _upload(self, parent_id: str) -> None:
        paths = [path for name in ARTIFACTS if (path := self._dir / name).exists()]
        stamp = digest({path.name: path.read_bytes().hex() for path in paths})
        if stamp == self._uploaded:
            return
        for path in paths:
            if path.name == files.SWEEP_YAML:  # it may hold a password
                text = masked(path.read_text(encoding="utf-8"))
                self._client.log_text(parent_id, text, path.name)
            else:
                self._client.log_artifact(parent_id, str(path))
        self._client.set_tag(parent_id, ARTIFACTS_TAG, stamp)
        self._uploaded = stamp


@contextmanager
def _locked(sweep_dir: Path) -> Iterator[None]:
    """One mirror of a sweep at a time, in whatever process."""
    path = sweep_dir / ".tracking.lock"
    with path.open("w") as file:
        while not try_lock(file.fileno(), path):
            time.sleep(_LOCK_POLL_S)
        yield
