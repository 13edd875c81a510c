"""What a job runs: takes assignments from its folder until it has reason to leave.

The worker itself only watches; a child process evaluates. So a crash, a kill for lack of memory or
a segmentation fault is recognized and reported, and costs neither the job nor its place in the
queue. The worker shows every few seconds that it runs, and ends an evaluation that does nothing for
too long.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType

from duqsweep.assignment import Assignment, Failure, failure
from duqsweep.mailbox import BEAT_S, Heartbeat, LeaveReason, Mailbox, Outcome, WorkerConfig
from duqsweep.processes import machine_id, oom_kills, start_ticks
from duqsweep.worker import pulse
from duqsweep.worker.blame import forget_simulator, kind_of_death
from duqsweep.worker.child import OpenEvaluator, evaluate_assignments, open_evaluator

POLL_S = 0.2
STOPPED_S = 10.0  # a worker that could not look for so long was stopped
SIGNAL_WAIT_S = 0.5  # a signal to the whole job may reach the child a little before the worker
LAST_TENTH = 0.1  # of its time; no assignment is begun in it…
LAST_TENTH_MAX_S = 600.0  # …nor is more time than this kept free

log = logging.getLogger(__name__)


def serve(worker_dir: str, opener: OpenEvaluator | None = None) -> None:
    """Serve the dispatcher that made `worker_dir`, then write there why the worker leaves.

    Args:
        worker_dir: `workers/<id>` of a sweep, with its `worker.json`.
        opener: Makes the function that evaluates; called in the child process. None: the real one.
    """
    mailbox = Mailbox(Path(worker_dir))
    worker_config = mailbox.worker_config()
    if worker_config is None or mailbox.worker_exit() is not None:
        return  # its dispatcher expects nothing of it any more
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Before the evaluation counts as hung: only the episode of that simulator is lost.
    hang_s = 60.0 * worker_config.hang_min / 2
    real = partial(open_evaluator, worker_config.simulators, hang_s)
    worker = _Worker(mailbox, worker_config, opener or real)
    try:
        reason = worker.run()
    finally:
        worker.end_child()
    mailbox.leave(reason, worker.finished)
    log.info("worker %s leaves: %s", worker_config.id, reason)


def heartbeat(started_at: float, assignment: Assignment | None) -> Heartbeat:
    """What this process says of itself.

    Args:
        started_at: Unix time.
        assignment: What it works on.
    """
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    # SLURM says only in the environment which job this is, and where it runs.
    node, job_id = os.environ.get("SLURMD_NODENAME"), os.environ.get("SLURM_JOB_ID")
    me = (os.getpid(), ticks, socket.gethostname(), machine_id(), node, job_id)
    return Heartbeat(*me, started_at, assignment)


class _Worker:
    def __init__(
        self, mailbox: Mailbox, worker_config: WorkerConfig, opener: OpenEvaluator
    ) -> None:
        self.mailbox = mailbox
        self.worker_config = worker_config
        self.opener = opener
        self.started_at = time.time()
        self.idle_since = time.monotonic()
        self.number = self.finished = 0
        self.current: Assignment | None = None
        self.child: ForkProcess | None = None
        self.connection: Connection | None = None
        self.oom_kills = 0
        self.leave_reason: LeaveReason | None = None
        self.next_beat = 0.0  # monotonic
        self.pulse = 0
        self.advanced_at = 0.0  # monotonic; when the evaluation last did something
        self.watched_at = 0.0  # monotonic; when this worker last looked
        # Without handlers, both would end the worker before it can say why it leaves.
        signal.signal(signal.SIGUSR2, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def run(self) -> LeaveReason:
        self._say_alive()
        interrupted = self.mailbox.interrupted_numbers()  # the scheduler has started the job again
        known = {number: self.mailbox.assignment(number) for number in interrupted}
        backlog = [(number, one) for number, one in known.items() if one is not None]
        while True:
            self._beat()
            reason = self.leave_reason or ("stopped" if self.mailbox.asked_to_leave() else None)
            if reason is not None:
                return reason
            if self.current is not None:
                self._watch()
                continue
            reason = self._reason_to_leave()
            if reason is not None:
                return reason
            claimed = backlog.pop(0) if backlog else self.mailbox.claim()
            if claimed is not None:
                self._begin(*claimed)
            else:
                time.sleep(POLL_S)

    def end_child(self) -> None:
        """End the evaluation and whatever it started."""
        if self.child is not None:
            assert self.child.pid is not None
            with suppress(ProcessLookupError):  # it has not made its group yet, or nothing is left
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.kill()
            self.child.join()
            assert self.connection is not None
            self.connection.close()
            self.child = None

    def _reason_to_leave(self) -> LeaveReason | None:
        if not self.worker_config.reuse and self.number:
            return "served"
        whole_s = 60.0 * self.worker_config.timeout_min
        left_s = whole_s - (time.time() - self.started_at)
        if left_s < min(LAST_TENTH * whole_s, LAST_TENTH_MAX_S):
            return "time"
        if time.monotonic() - self.idle_since > self.worker_config.idle_s:
            return "idle"
        return None

    def _begin(self, number: int, assignment: Assignment) -> None:
        self.number, self.current = number, assignment
        self._say_alive()
        if self.child is None:
            context = multiprocessing.get_context("fork")
            self.connection, theirs = context.Pipe()
            arguments = (theirs, self.mailbox.sweep_dir, self.opener, os.getpid())
            self.child = context.Process(target=evaluate_assignments, args=arguments)
            self.child.start()
            theirs.close()
        self.pulse = pulse.count()
        self.advanced_at = self.watched_at = time.monotonic()
        self.oom_kills = oom_kills()
        forget_simulator()
        assert self.connection is not None
        self.connection.send(assignment)

    def _watch(self) -> None:
        assert self.child is not None
        assert self.connection is not None
        assert self.current is not None
        try:
            if self.connection.poll(POLL_S):
                self._finish(self.connection.recv())
            elif not self.child.is_alive():
                raise EOFError
            elif self._is_hung():
                self.leave_reason = "hung"
                said = f"the evaluation did nothing for {self.worker_config.hang_min:g} minutes"
                self._finish(Outcome(self.current, None, failure("hung", said)))
        except (EOFError, ConnectionResetError):
            self.child.join()
            code = self.child.exitcode
            if code == -signal.SIGTERM:
                time.sleep(SIGNAL_WAIT_S)
            if self.leave_reason is None:
                self._finish(Outcome(self.current, None, self._death(code)))

    def _death(self, code: int | None) -> Failure:
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            if -code == signal.SIGKILL and oom_kills() > self.oom_kills:
                return failure("oom", "the kernel killed the evaluation for lack of memory")
            return failure(kind_of_death(code), f"the evaluation was killed by {name}")
        return failure(kind_of_death(code), f"the evaluation ended with exit code {code}")

    def _finish(self, outcome: Outcome) -> None:
        if outcome.failure is not None:
            self.end_child()  # what it has loaded may be damaged
        self.mailbox.finish(self.number, outcome)
        self.finished = self.number
        self.current = None
        self.idle_since = time.monotonic()
        self._say_alive()

    def _is_hung(self) -> bool:
        """Whether the evaluation has done nothing for `hang_min` minutes in which it could."""
        now = time.monotonic()
        if now - self.watched_at > STOPPED_S:  # a suspended job: the evaluation stood still too
            self.advanced_at += now - self.watched_at
        self.watched_at = now
        if pulse.count() != self.pulse:
            self.pulse, self.advanced_at = pulse.count(), now
        return now - self.advanced_at > 60.0 * self.worker_config.hang_min

    def _beat(self) -> None:
        if time.monotonic() >= self.next_beat:
            self.next_beat = time.monotonic() + BEAT_S
            with suppress(OSError):  # a disk that does not answer now is no reason to end
                self.mailbox.beat()

    def _say_alive(self) -> None:
        self.mailbox.set_alive(heartbeat(self.started_at, self.current))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        left_s = 60.0 * self.worker_config.timeout_min - (time.time() - self.started_at)
        if number == signal.SIGTERM:
            self.leave_reason = self.leave_reason or "terminated"
        elif left_s < 2 * self.worker_config.signal_s:
            self.leave_reason = "timeout"
        else:
            self.leave_reason = "preempted"
