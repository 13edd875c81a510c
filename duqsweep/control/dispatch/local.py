"""Workers as processes of this machine, one per GPU, or one per core where there is none."""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import submitit

from duqsweep.control.dispatch.devices import cuda_devices, device_lines
from duqsweep.control.dispatch.launch import (
    JOB_FOLDER,
    LOG_SUFFIX,
    SIGNAL_S,
    Entry,
    JobView,
    is_starting,
    log_tail,
    outside_of_any_job,
    setup_lines,
    submit,
)
from duqsweep.mailbox import Job, Mailbox
from duqsweep.processes import start_ticks

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

LEAVE_S = 3.0  # a worker that was asked to leave is killed after that

# A process that has ended must be waited for, or it stays a zombie; one that has not must outlive
# the launcher that started it.
_started: list[submitit.Job[None]] = []
# When it is deleted, submitit's job looks for a file, which can fail while the interpreter takes
# its modules apart. So the jobs go before that.
atexit.register(_started.clear)


class LocalLauncher:
    """submitit's local executor, of which only the start is used."""

    name = "local"
    period_s = 0.5

    def __init__(self, config: LauncherConfig) -> None:
        self.config = config
        self.gpus = cuda_devices()
        self.capacity = config.jobs or len(self.gpus) or len(os.sched_getaffinity(0))
        self._turn = count()

    def start(self, mailbox: Mailbox, entry: Entry) -> str:
        """Start a process that outlives this one, and Ctrl-C at its terminal."""
        executor = submitit.LocalExecutor(mailbox.folder / JOB_FOLDER)
        output = mailbox.folder / JOB_FOLDER / f"launch{LOG_SUFFIX}"
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
        with outside_of_any_job():
            job = submit(executor, mailbox, entry)
        _started.append(job)
        return str(job.job_id)

    def views(self, mailboxes: Sequence[Mailbox]) -> dict[Path, JobView]:
        """Whether the processes still run."""
        wait_for_ended()
        views = {mailbox.folder: self._view(mailbox) for mailbox in mailboxes}
        return {folder: view for folder, view in views.items() if view is not None}

    def cancel(self, mailboxes: Sequence[Mailbox]) -> None:
        """Wait a little for workers that were asked to leave, then kill them."""
        deadline = time.monotonic() + LEAVE_S
        while time.monotonic() < deadline and any(map(running_pid, mailboxes)):
            wait_for_ended()
            time.sleep(0.05)
        for mailbox in mailboxes:
            pid = running_pid(mailbox)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _next_gpu(self) -> str:
        return self.gpus[next(self._turn) % len(self.gpus)] if self.gpus else ""

    def _view(self, mailbox: Mailbox) -> JobView | None:
        terms = mailbox.terms()
        if terms is not None and terms.host != socket.gethostname():
            return JobView(True, "lost", f"it was started on another machine, {terms.host}")
        if running_pid(mailbox) is not None:
            return JobView(False)
        if mailbox.alive() is None and mailbox.job() is None and is_starting(mailbox):
            return None
        said = f"the worker's process could not start\n{log_tail(mailbox)}".strip()
        if mailbox.alive() is None:
            return JobView(True, "setup", said)
        return JobView(True, "lost", said.replace("could not start", "vanished", 1))


def wait_for_ended() -> None:
    """Free the process table of jobs that have ended."""
    _started[:] = [job for job in _started if not job.done()]


def running_pid(mailbox: Mailbox) -> int | None:
    """The process that does the worker's job, if it runs: the worker, before that submitit's."""
    alive = mailbox.alive()
    if alive is not None:
        return alive.pid if start_ticks(alive.pid) == alive.start_ticks else None
    job: Job | None = mailbox.job()
    if job is None or start_ticks(int(job.job_id)) is None:
        return None
    return int(job.job_id)
