"""The runs of one sweep in MLflow: what each holds, and the calls that bring it up to date.

MLflow's client takes milliseconds per call, so as few as possible are made: what is there already
is not written again, and what belongs to a run comes in one batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duqsweep.control.tracking.runs import P_FRONT_TAG, Metric, RunRecord

KEY_TAG = "duqsweep.key"  # of one run: <sweep key>, or <sweep key>/<trial>
METRICS_TAG = "duqsweep.metrics"  # how many metrics were written, and their digest
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
            self._runs[key] = CopiedRun(
                run.info.run_id,
                run.info.status,
                dict(run.data.tags),
                run.info.artifact_uri,
                bool(run.data.params),
                run.info.end_time,
            )

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

    def get(self, key: str, record: RunRecord, tags: Mapping[str, str]) -> CopiedRun:
        """The run of `key`; made with the tags of `record` and `tags` where there is none."""
        run = self._runs.get(key)
        if run is None:
            all_tags = {**record.tags, **tags, KEY_TAG: key}
            created = self._client.create_run(
                self._experiment, start_time=record.started_ms, tags=all_tags, run_name=record.name
            )
            info = created.info
            run = self._runs[key] = CopiedRun(info.run_id, "RUNNING", all_tags, info.artifact_uri)
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
        changed = {name: text for name, text in tags.items() if run.tags.get(name) != text}
        if not (exactly or fresh) and not _is_telling(changed, run.tags):
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
        run.tags.update(tags)
        run.has_params = run.has_params or bool(params)


def _left(metrics: tuple[Metric, ...], stamp: str) -> tuple[Metric, ...]:
    """The metrics that are missing where `stamp` was noted; all where others were written."""
    count = int(stamp.partition(" ")[0] or 0)
    return metrics[count:] if count and _stamp(metrics[:count]) == stamp else metrics


def _stamp(metrics: tuple[Metric, ...]) -> str:
    return f"{len(metrics)} {hashlib.sha256(repr(metrics).encode()).hexdigest()[:16]}"


def _is_telling(changed: Mapping[str, str], held: Mapping[str, str]) -> bool:
    """Whether these tags say more than that p(front) is a little different."""
    if set(changed) - {P_FRONT_TAG}:
        return True
    return P_FRONT_TAG in changed and (
        P_FRONT_TAG not in held
        or abs(float(changed[P_FRONT_TAG]) - float(held[P_FRONT_TAG])) >= MOVED
    )
