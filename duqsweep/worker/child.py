"""The process of a worker that evaluates: it may crash, the worker that started it does not."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep.assignment import Assignment, Failure, failure
from duqsweep.checkpoint.weights_id import begin_to_identify
from duqsweep.envs.assets import RECORDED
from duqsweep.envs.rendering import AUTO, begin_to_resolve
from duqsweep.errors import DuqsweepError
from duqsweep.files import (
    EPISODES_JSONL,
    LOG_TXT,
    RESULT_JSON,
    SPEC_JSON,
    VITALS_JSON,
    read_record,
)
from duqsweep.mailbox import Outcome
from duqsweep.processes import die_with
from duqsweep.result import TrialResult
from duqsweep.spec import Trial
from duqsweep.worker.blame import is_machines

if TYPE_CHECKING:
    from duqsweep.worker.cache import WorkerCache

Evaluator = Callable[[Path, int], TrialResult]
OpenEvaluator = Callable[[], Evaluator]

log = logging.getLogger(__name__)


def open_evaluator(simulators: int = 1, hang_s: float | None = None) -> Evaluator:
    """The real evaluation, with one bench for all trials of this process.

    Args:
        simulators: How many simulate at once.
        hang_s: A simulator that gives no answer for so long is ended; None: a default.
    """
    bench: WorkerCache | None = None

    def evaluate_trial(folder: Path, until_episode: int) -> TrialResult:
        nonlocal bench
        if bench is None:
            _begin_beside(folder)
            gc.disable()  # what is imported stays: collections need not look at it, now…
        try:
            from duqsweep.worker.cache import HANG_S, WorkerCache
            from duqsweep.worker.evaluate import evaluate
        finally:
            gc.enable()
        if bench is None:
            gc.freeze()  # …or later
            bench = WorkerCache(simulators=simulators, hang_s=hang_s or HANG_S)
        return evaluate(folder, until_episode, bench)

    return evaluate_trial


def _begin_beside(folder: Path) -> None:
    """Begin what a trial's evaluation will wait for, before torch is imported, which takes long."""
    spec = read_record(Trial, folder / SPEC_JSON).spec
    begin_to_identify(spec.policy)
    suite = spec.suite
    if suite.name != RECORDED and suite.renderer == AUTO:
        begin_to_resolve()


def evaluate_assignments(
    connection: Connection, sweep_dir: Path, opener: OpenEvaluator, parent: int
) -> None:
    """Answer each assignment on `connection` with its outcome, until the other end is closed.

    Args:
        connection: Receives `Assignment`, sends `Outcome`.
        sweep_dir: The sweep's folder.
        opener: Called once, at the first assignment.
        parent: Process id of the worker, without which this process must not live.
    """
    os.setpgid(0, 0)  # so that what it starts can be ended with it
    if not die_with(parent):
        return
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    evaluator: Evaluator | None = None
    while True:
        try:
            assignment: Assignment = connection.recv()
        except EOFError:
            return
        folder = assignment.folder(sweep_dir)
        what, until = f"{assignment.part} trial {assignment.trial}", assignment.until_episode
        log.info("%s up to episode %d", what.strip(), until)
        try:
            evaluator = evaluator or opener()
            result = evaluator(folder, assignment.until_episode)
            outcome = Outcome(assignment, result.outcome, None, promised_files(folder))
        except Exception as error:
            outcome = Outcome(assignment, None, broken(folder, error))
        connection.send(outcome)


def promised_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a finished assignment leaves, by name."""
    paths = [folder / name for name in (VITALS_JSON, EPISODES_JSONL, RESULT_JSON)]
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.exists()
    }


def broken(folder: Path, error: Exception) -> Failure:
    """Why an evaluation raised instead of recording a result; also goes to the trial's log."""
    with trial_log(folder / LOG_TXT):
        log.error("the evaluation broke", exc_info=error)
    what = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, MemoryError):
        return failure("oom", what)
    if is_machines(error) or isinstance(error, DuqsweepError):  # else a damaged file
        return failure("node", what)
    trace = "".join(traceback.format_exception(error)).strip()
    return failure("crash", f"{what}\n{trace}")


@contextmanager
def trial_log(path: Path) -> Iterator[None]:
    """Everything that is logged in the block also goes to `path`."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
