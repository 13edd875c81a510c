"""Evaluates one trial from its folder: the worker's whole job, resumable by any process."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from duqsweep import files
from duqsweep.errors import EvaluationError, InfrastructureError, SpecError
from duqsweep.result import EpisodeRecord, Outcome, TrialResult, Vitals
from duqsweep.seams import Policy
from duqsweep.spec import LedgerEntry, Trial
from duqsweep.worker.actions import append_actions
from duqsweep.worker.blame import is_machines
from duqsweep.worker.cache import WorkerCache
from duqsweep.worker.checkpoint import check_contents
from duqsweep.worker.episode import Episode, Rollout
from duqsweep.worker.episode_queue import Attempt, EpisodeQueue
from duqsweep.worker.hardware import resolve_device
from duqsweep.worker.ledger import read_ledger
from duqsweep.worker.lock import exclusive
from duqsweep.worker.meter import Meter
from duqsweep.worker.phases import phase, shown_in
from duqsweep.worker.policy_calls import PolicyCalls
from duqsweep.worker.prepare import prepare
from duqsweep.worker.remote_simulator import Simulator
from duqsweep.worker.summary import SavedProgress, summarise, too_many_errors
from duqsweep.worker.vitals import measure_vitals

__all__ = ["WorkerCache", "evaluate"]


LOCK_WAIT_S = 20.0  # a killed holder frees it at once; a living one must not be there
ATTEMPTS = 2  # of an episode whose simulator fails
THROUGHPUT_S = 5.0  # between two updates of throughput.json
WINDOW = 4  # episodes per task among which a simulator looks for tasks that it has built

log = logging.getLogger(__name__)


def evaluate(trial_dir: Path, until_episode: int, bench: WorkerCache | None = None) -> TrialResult:
    """Evaluate a trial up to an episode of its sweep's ledger.

    Plays those of the first `until_episode` entries that are not finished in the folder. Writes
    vitals.json before the first episode, a line of episodes.jsonl after each, result.json at the
    end, and a log. A trial that has reached the episode, or failed before, gives the recorded
    result and loads nothing. The file `stop` in the folder ends it between two episodes.

    Whether a trial is worth an episode is not decided here: the worker obeys `stop`, and the bound
    `min_speedup` that the early-stopping strategy wrote into spec.json.

    Args:
        trial_dir: `trials/NNNN` of a sweep, with a spec.json; ledger.json lies two folders above.
        until_episode: Number of ledger entries to have finished; 0 measures the vitals only.
        bench: What this process keeps between trials; without it, everything is loaded anew.

    Returns:
        The content of result.json. An error of the policy is in it and is not raised.

    Raises:
        InfrastructureError: The machine failed, or another process evaluates this trial. Nothing is
            lost: the same call, here or elsewhere, resumes it.
        SpecError: spec.json, or a file beside it, holds something impossible.
    """
    if bench is None:
        with closing(WorkerCache()) as own:
            return evaluate(trial_dir, until_episode, own)
    trial = files.read_record(Trial, trial_dir / files.SPEC_JSON)
    with exclusive(trial_dir / files.TRIAL_LOCK, LOCK_WAIT_S), _log_file(trial_dir / files.LOG_TXT):
        progress = SavedProgress.read(trial_dir)
        if progress.result and _has_ended(progress.result, until_episode):
            return progress.result
        left = until_episode - len(progress.finished)
        log.info("trial %d: %d of %d episodes are left", trial.number, left, until_episode)
        result = _Evaluation(trial, trial_dir, until_episode, bench, progress).run()
        files.write_json(trial_dir / files.RESULT_JSON, result.to_json())
        log.info("trial %d %s: %s", trial.number, result.outcome, result.reason)
        return result


def _has_ended(result: TrialResult, until_episode: int) -> bool:
    if result.outcome == "failed":
        return True
    return result.outcome == "complete" and result.episodes >= until_episode


class _Evaluation:
    """One evaluation of one trial; the folder's lock is held."""

    def __init__(
        self,
        trial: Trial,
        trial_dir: Path,
        until_episode: int,
        bench: WorkerCache,
        progress: SavedProgress,
    ) -> None:
        self._trial, self._spec = trial, trial.spec
        self._dir, self._sweep_dir = trial_dir, trial_dir.parent.parent
        self._until = until_episode
        self._bench = bench
        self._progress = progress
        self._vitals: Vitals | None = progress.vitals
        self._records = {record.i: record for record in progress.episodes}
        self._attempts: dict[int, int] = {}  # of entries that are played again
        self._noted_at = 0.0  # monotonic; when throughput.json was written

    def run(self) -> TrialResult:
        """Play the episodes; turn whatever the policy raises into a failed result."""
        try:
            return self._play_all()
        except InfrastructureError:
            raise
        except Exception as error:
            if is_machines(error):
                raise InfrastructureError(f"{type(error).__name__}: {error}") from error
            # Any exception of a quantized or compiled policy is an outcome of this point of the
            # space; it is recorded whole and must not end the process that serves other trials.
            log.exception("trial %d failed", self._trial.number)
            kind = type(error).__name__
            return self._result("failed", f"{kind}: {error}", (kind, traceback.format_exc()))

    def _play_all(self) -> TrialResult:
        again = self._to_repeat()
        left = self._unfinished()
        if self._vitals is not None and not left and not again:
            return self._complete()
        if self._asked_to_stop() is not None:
            return self._stopped()
        entries = [*again, *self._ledger(left)]
        with shown_in(self._dir):
            policy = self._ready_policy(len(entries))
        if self._vitals and self._vitals.speedup < self._trial.min_speedup:
            return self._too_slow(self._vitals.speedup)
        return self._stopped() if self._play(policy, entries) else self._complete()

    def _unfinished(self) -> list[int]:
        """Those of the first `until_episode` entries that need an attempt."""
        return [i for i in range(self._until) if i not in self._progress.finished]

    def _ledger(self, numbers: list[int]) -> list[LedgerEntry]:
        try:
            ledger = read_ledger(self._sweep_dir / files.LEDGER_JSON)
        except (SpecError, EvaluationError, FileNotFoundError) as error:  # the next start mends it
            raise InfrastructureError(f"the sweep's ledger is damaged: {error}") from error
        if self._until > len(ledger):
            raise InfrastructureError(
                f"the ledger has {len(ledger)} episodes, asked for are {self._until}"
            )
        return [ledger[i] for i in numbers]

    def _to_repeat(self) -> list[LedgerEntry]:
        """Entries whose errors ended an earlier evaluation; the machine may have been repaired."""
        if too_many_errors(self._episodes(), self._until) is None:
            return []
        broken = [i for i, record in sorted(self._records.items()) if record.error is not None]
        for i in broken:
            self._attempts[i] = self._records.pop(i).attempt + 1
        return self._ledger([i for i in broken if i in self._progress.finished])

    def _ready_policy(self, episodes: int) -> Policy:
        """What plays, its policy's vitals measured, and simulators for so many episodes."""
        cache_dir = self._sweep_dir / files.CACHE_DIR
        cache_dir.mkdir(exist_ok=True)
        simulator = self._bench.simulator(self._sweep_dir, self._spec.suite)
        check_contents(self._sweep_dir, self._spec.policy)
        if episodes:
            self._bench.simulators(self._spec.suite).begin_to_open(episodes)
        gpu = self._bench.gpu(resolve_device(self._spec.runtime.device))
        is_ready = self._vitals is not None and self._bench.kept(self._spec) is not None
        with nullcontext() if is_ready else gpu.preparing():
            prepared = prepare(self._spec, self._bench, cache_dir)
            if episodes:  # nothing else may use the machine while latency is measured
                with phase("simulators"):
                    self._bench.simulators(self._spec.suite).wait_until_open()
            if self._vitals is None:
                with gpu.alone():
                    self._vitals = measure_vitals(self._spec, prepared, simulator)
                files.write_json(self._dir / files.VITALS_JSON, self._vitals.to_json())
        if self._vitals.bits != prepared.bits:
            raise EvaluationError(
                f"vitals.json of trial {self._trial.number} belongs to another spec: "
                "its quantized layers are not those that spec.json selects"
            )
        return prepared.playing

    def _play(self, policy: Policy, entries: list[LedgerEntry]) -> int:
        """Play entries, each twice if its simulator fails, and write a line for each attempt.

        Returns:
            How many are left, after a request to stop.
        """
        suite = self._spec.suite
        attempts: list[Attempt] = [(entry, self._first_attempt(entry.i)) for entry in entries]
        waiting = EpisodeQueue(attempts, WINDOW * suite.total_tasks)
        simulators = self._bench.simulators(suite)
        gpu = self._bench.gpu(resolve_device(self._spec.runtime.device))
        meter = self._bench.meter = Meter(len(simulators.simulators))

        def begin(simulator: Simulator) -> tuple[tuple[Rollout, int], Episode] | None:
            if not waiting or self._asked_to_stop() is not None:
                return None
            entry, attempt = waiting.take(simulator, simulators.simulators)
            rollout = Rollout(policy, entry, suite)
            meter.begin(rollout)
            return (rollout, attempt), rollout.run()

        def end(played: tuple[Rollout, int], error: InfrastructureError | None) -> None:
            rollout, attempt = played
            meter.end(rollout)
            entry = rollout.entry
            record = rollout.record(attempt, error)
            append_actions(self._dir, record.i, attempt, rollout.actions)
            files.append_line(self._dir / files.EPISODES_JSONL, record.to_json())
            self._records[entry.i] = record
            self._note_throughput(meter, least_s=THROUGHPUT_S)
            log.info("episode %d: %.2f s", entry.i, record.wall_s)
            if record.error is not None:
                log.warning("episode %d, attempt %d: %s", entry.i, attempt, record.error)
                if attempt + 1 < ATTEMPTS:
                    waiting.again((entry, attempt + 1))
                    return
            reason = too_many_errors(self._episodes(), self._until)
            if reason is not None:
                raise InfrastructureError(reason)

        simulators.play(begin, end, PolicyCalls(policy, gpu))
        self._note_throughput(meter, least_s=0.0)
        return len(waiting)

    def _note_throughput(self, meter: Meter, least_s: float) -> None:
        """Write throughput.json, unless that was done less than `least_s` seconds ago."""
        now = time.monotonic()
        if now - self._noted_at >= least_s:
            self._noted_at = now
            files.write_json(self._dir / files.THROUGHPUT_JSON, meter.read().to_json())

    def _first_attempt(self, i: int) -> int:
        return 1 if i in self._records else self._attempts.get(i, 0)

    def _asked_to_stop(self) -> str | None:
        """Why, if the controller has left a `stop` file."""
        path = self._dir / files.STOP
        return path.read_text(encoding="utf-8") if path.exists() else None

    def _episodes(self) -> tuple[EpisodeRecord, ...]:
        return tuple(self._records.values())

    def _complete(self) -> TrialResult:
        return self._result("complete", f"played {len(self._records)} episodes")

    def _stopped(self) -> TrialResult:
        why = self._asked_to_stop() or "asked to stop"
        played = f"after {len(self._records)} of {self._until} episodes"
        return self._result("stopped", f"{why}; {played}")

    def _too_slow(self, speedup: float) -> TrialResult:
        return self._result(
            "stopped",
            f"{speedup:.2f} times the speed of the unquantized policy; the sweep gives an episode "
            f"from {self._trial.min_speedup:.2f} on",
        )

    def _result(
        self, outcome: Outcome, reason: str, error: tuple[str, str] | None = None
    ) -> TrialResult:
        return summarise(self._episodes(), outcome, reason, error)


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Append what the worker side logs, from INFO on, to a trial's own log."""
    logger = logging.getLogger("duqsweep")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
