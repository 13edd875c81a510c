"""The runs of one sweep in MLflow: what each holds, and the calls that bring it up to date.

MLflow's client takes milliseconds per call, so as few as possible are made: what is there already
is not written again, and what belongs to a run comes in one batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from duqsweep.control.tracking.runs import P_FRONT_TAG, Metric, RunRecord

KEY_TAG = "duqsweep.key"  # of one run: <sweep key>, or <sweep key>/<trial>
METRICS_TAG = "duqsweep.metrics"  # how many metrics were written, and their digest
ARTIFACTS_TAG = "duqsweep.artifacts"  # digest of the files beside a run
MOVED = 0.1  # a change of p(front) that is written before the sweep's end
_BATCH = 800  # metrics per call; MLflow takes 1,000 metrics, parameters and tags together
_PAGE = 100  # runs per answer


@dataclass
class CopiedRun:
    """What MLflow holds of a run, as far as it is known."""

    id: str
    status: str
    tags: dict[str, str]
    artifacts: str  # the address of its files
    has_params: bool = False  # they are written once and together
    ended_ms: int | None = None
    # Tags that it was made with and that are true once its metrics are there: in one call less.
    promised: dict[str, str] = field(default_factory=dict)

    @classmethod
    def found(cls, run: Any) -> CopiedRun:
        """What MLflow has; without promises of one who was killed before keeping them."""
        tags = dict(run.data.tags)
        if METRICS_TAG in tags and not run.data.metrics:
            del tags[METRICS_TAG]
            tags.pop(ARTIFACTS_TAG, None)
        info = run.info
        has_params = bool(run.data.params)
        return cls(info.run_id, info.status, tags, info.artifact_uri, has_params, info.end_time)

    def has(self, tags: Mapping[str, str]) -> bool:
        """Whether it has these tags."""
        return tags.items() <= self.tags.items()


class CopiedRuns:
    """Finds, makes and updates runs; each is known by its key, which is one of its tags."""

    def __init__(self, client: Any, experiment: str, sweep_key: str) -> None:
        """Look up every run of a sweep; of two with one key (a lost answer) the older stays.

        Args:
            client: MLflow's.
            experiment: Its id.
            sweep_key: Of the sweep; see `runids`.
        """
        self._client = client
        self._experiment = experiment
        self._runs: dict[str, CopiedRun] = {}
        for run in self._search(f"tags.`{KEY_TAG}` LIKE '{sweep_key}%'"):
            key = run.data.tags[KEY_TAG]
            if key in self._runs:
                client.delete_run(run.info.run_id)
                continue
            self._runs[key] = CopiedRun.found(run)

    def _search(self, wanted: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                wanted,
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def ids(self) -> dict[str, str]:
        """Key → id of every run."""
        return {key: run.id for key, run in self._runs.items()}

    def get(self, key: str, record: RunRecord, stamps: Mapping[str, str]) -> CopiedRun:
        """The run of `key`, made where there is none.

        Args:
            key: Of the run.
            record: What `bring` is to bring it to.
            stamps: Further tags, those of `bring`; they need to be true no earlier than that.
        """
        run = self._runs.get(key)
        if run is None:
            tags = {**record.tags, KEY_TAG: key}
            promised = {}
            if 0 < len(record.metrics) <= _BATCH:
                promised = {**stamps, METRICS_TAG: _stamp(record.metrics)}
            created = self._client.create_run(
                self._experiment,
                start_time=record.started_ms,
                tags=tags | promised,
                run_name=record.name,
            )
            info = created.info
            run = CopiedRun(info.run_id, "RUNNING", tags, info.artifact_uri, promised=promised)
            self._runs[key] = run
        return run

    def bring(
        self,
        run: CopiedRun,
        record: RunRecord,
        stamps: Mapping[str, str],
        exactly: bool = True,
    ) -> None:
        """Bring a run to its record.

        Args:
            run: As `get` gave it.
            record: What it is to hold; parameters come with the first numbers, in one call.
            stamps: Further tags.
            exactly: Also where nothing but p(front) has changed, by less than `MOVED`.
        """
        fresh = _left(record.metrics, run.tags.get(METRICS_TAG, ""))
        tags = {**record.tags, **stamps}
        if fresh:
            tags[METRICS_TAG] = _stamp(record.metrics)
        held = run.tags | run.promised
        changed = {name: text for name, text in tags.items() if held.get(name) != text}
        if not (exactly or fresh) and not _is_telling(changed, held):
            changed = {}
        self._set_status(run, record)
        is_early = record.status == "RUNNING" and not record.metrics
        params = {} if run.has_params or is_early else record.params
        if fresh or changed or params:
            self._log(run, fresh, params, changed)

    def tag(self, run: CopiedRun, tags: Mapping[str, str]) -> None:
        """Give a run further tags."""
        if not run.has(tags):
            self._log(run, (), {}, tags)

    def _set_status(self, run: CopiedRun, record: RunRecord) -> None:
        if record.status == "RUNNING":
            if run.status != "RUNNING":
                self._client.update_run(run.id, status="RUNNING")
        elif (record.status, record.ended_ms) != (run.status, run.ended_ms):
            self._client.set_terminated(run.id, record.status, record.ended_ms)
        run.status, run.ended_ms = record.status, record.ended_ms

    def _log(
        self,
        run: CopiedRun,
        metrics: Sequence[Metric],
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> None:
        """Write these; of several batches the last has the tags, and so the metrics' digest."""
        from mlflow import entities

        written = [entities.Metric(*metric) for metric in metrics]
        while len(written) > _BATCH:
            self._client.log_batch(run.id, metrics=written[:_BATCH])
            del written[:_BATCH]
        self._client.log_batch(
            run.id,
            metrics=written,
            params=[entities.Param(*item) for item in params.items()],
            tags=[entities.RunTag(*item) for item in tags.items()],
        )
        run.tags.update({**run.promised, **tags})
        run.promised = {}
        run.has_params = run.has_params or bool(params)


def _left(metrics: tuple[Metric, ...], stamp: str) -> tuple[Metric, ...]:
    """The metrics that are missing where `stamp` was noted; all where others were written."""
    count = int(stamp.partition(" ")[0] or 0)
    return metrics[count:] if count and _stamp(metrics[:count]) == stamp else metrics


def _stamp(metrics: tuple[Metric, ...]) -> str:
    return f"{len(metrics)} {hashlib.sha256(repr(metrics).encode()).hexdigest()[:16]}"


def has_moved(before: float | None, now: float | None) -> bool:
    """Whether p(front) has changed by so much that it is written before the sweep's end."""
    if before is None or now is None:
        return before is not now
    return abs(before - now) >= MOVED


def _is_telling(changed: Mapping[str, str], held: Mapping[str, str]) -> bool:
    """Whether these tags say more than that p(front) is a little different."""
    if set(changed) != {P_FRONT_TAG}:
        return bool(changed)
    before = held.get(P_FRONT_TAG)
    return has_moved(None if before is None else float(before), float(changed[P_FRONT_TAG]))
