"""Workers as processes of this machine, one per GPU, or one per core where there is none."""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import submitit

from duqsweep.assignment import FailureKind
from duqsweep.control.dispatch.devices import cuda_devices, device_lines
from duqsweep.control.dispatch.launch import (
    LOG_SUFFIX,
    SIGNAL_S,
    Entry,
    JobView,
    SubmissionError,
    is_starting,
    job_folder,
    log_tail,
    outside_of_any_job,
    setup_lines,
    worker_command,
)
from duqsweep.mailbox import Mailbox
from duqsweep.processes import has_proof, machine_id, start_ticks, with_proof

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

LEAVE_S = 3.0  # a worker that was asked to leave is killed after that

# A process that has ended must be waited for, or it stays a zombie; one that has not must outlive
# the launcher that started it.
_started: list[submitit.Job[None]] = []
# When it is deleted, submitit's job looks for a file, which can fail while the interpreter takes
# its modules apart. So the jobs go before that.
atexit.register(_started.clear)
_started_lock = Lock()


class LocalLauncher:
    """submitit's local executor, of which only the start is used."""

    name = "local"
    period_s = 0.5

    def __init__(self, config: LauncherConfig) -> None:
        self.config = config
        self.gpus = cuda_devices()
        self.capacity = config.jobs or len(self.gpus) or len(os.sched_getaffinity(0))
        self._turn = count()

    def check(self) -> None:
        """This machine takes every job."""

    def start(self, mailbox: Mailbox, entry: Entry) -> str:
        """Start a process that outlives this one, and Ctrl-C at its terminal."""
        worker_config = mailbox.worker_config()
        assert worker_config is not None
        folder = job_folder(mailbox)
        executor = submitit.LocalExecutor(folder)
        output = folder / f"launch{LOG_SUFFIX}"
        lines = [
            "trap '' INT HUP QUIT TSTP",  # of this process's terminal
            # A pipe that this process writes to must end with it.
            f"exec >>{shlex.quote(str(output))} 2>&1 </dev/null",
            *device_lines(self._next_gpu()),
        ]
        executor.update_parameters(
            timeout_min=self.config.timeout_min,
            signal_delay_s=SIGNAL_S,
            setup=lines + setup_lines(self.config.cpus_per_task, self.config.setup),
        )
        command = worker_command(mailbox, entry)
        try:
            with outside_of_any_job(worker_config.proof):
                job = executor._submit_command(command)
        except OSError as error:
            raise SubmissionError(f"no process can be started: {error}", command) from error
        with _started_lock:
            _started.append(job)
        return str(job.job_id)

    def views(self, mailboxes: Sequence[Mailbox]) -> dict[Path, JobView]:
        """Whether the processes still run."""
        wait_for_ended()
        views = {mailbox.folder: self._view(mailbox) for mailbox in mailboxes}
        return {folder: view for folder, view in views.items() if view is not None}

    def cancel(self, mailboxes: Sequence[Mailbox]) -> None:
        """Wait a little for workers that were asked to leave, then kill all their processes."""
        deadline = time.monotonic() + LEAVE_S
        while time.monotonic() < deadline and any(map(running_pid, mailboxes)):
            wait_for_ended()
            time.sleep(0.05)
        for mailbox in mailboxes:
            worker_config = mailbox.worker_config()
            assert worker_config is not None
            for pid in with_proof(worker_config.proof):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _next_gpu(self) -> str:
        return self.gpus[next(self._turn) % len(self.gpus)] if self.gpus else ""

    def _view(self, mailbox: Mailbox) -> JobView | None:
        worker_config = mailbox.worker_config()
        assert worker_config is not None
        if running_pid(mailbox) is not None:
            return JobView("running")
        if worker_config.machine != machine_id():
            said = f"it was started on {worker_config.host}, another machine or before its restart"
            return JobView("absent", message=said)
        if mailbox.heartbeat() is None and mailbox.job() is None:
            said = "its process was never started"
            return None if is_starting(mailbox) else JobView("absent", message=said)
        kind: FailureKind = "setup" if mailbox.heartbeat() is None else "lost"
        what = "could not start" if kind == "setup" else "vanished"
        said = f"the worker's process {what}\n{log_tail(mailbox)}".strip()
        return JobView("ended", kind=kind, message=said, is_proven=True)


def wait_for_ended() -> None:
    """Free the process table of jobs that have ended."""
    with _started_lock:
        _started[:] = [job for job in _started if not job.done()]


def running_pid(mailbox: Mailbox) -> int | None:
    """The process that does the worker's job, if it runs here: the worker, before that its shell.

    Only a process whose environment names this worker counts, whatever the files say.
    """
    worker_config, alive, job = mailbox.worker_config(), mailbox.heartbeat(), mailbox.job()
    if worker_config is None or worker_config.machine != machine_id():
        return None
    if alive is not None:
        pid, runs = alive.pid, start_ticks(alive.pid) == alive.start_ticks
    elif job is not None and job.job_id.isdigit():
        pid, runs = int(job.job_id), start_ticks(int(job.job_id)) is not None
    else:
        return None
    return pid if runs and has_proof(pid, worker_config.proof) else None
