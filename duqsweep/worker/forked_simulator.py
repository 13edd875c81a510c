"""Processes of simulators, forked from one template, seen from the process of the policy."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection

from duqsweep.worker.simulator_requests import Fork, Wait

# One core each: several simulators share a machine.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",  # that Mesa starts beside its caller's
}
STDERR_FD = 2
END_S = 5.0  # a template that does not answer for so long is ended, with its simulators


class SimulatorTemplate:
    """A `simulator_template` that this process has started."""

    def __init__(self, opener: str, renderer: str, suite: str) -> None:
        """Start it; the system ends it with the thread that calls this.

        Args:
            opener: `Opening.opener` of all that will be forked.
            renderer: A renderer, not auto.
            suite: Name of the suite that will be opened.
        """
        ours, theirs = socket.socketpair()
        words = ["-u", "-m", "duqsweep.worker.simulator_template", str(theirs.fileno())]
        path = os.pathsep.join(filter(None, sys.path))  # what can be imported here can be there
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *words, str(os.getpid()), opener, renderer, suite],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
            )
        self._line = ours
        self._control: Connection[object, int | None] = Connection(os.dup(ours.fileno()))
        self._unborn: deque[ForkedSimulator] = deque()

    @property
    def is_alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    def fork(self, connection_fd: int, memory_fd: int) -> ForkedSimulator:
        """A simulator with these descriptors; does not wait for it.

        It has the environment, the working folder and the standard error of this process.
        """
        forked = ForkedSimulator(self)
        self._unborn.append(forked)
        folder_fd = os.open(".", os.O_PATH)
        with suppress(BrokenPipeError, ConnectionResetError):  # the template has died: so has it
            self._control.send(Fork({**os.environ, **ONE_THREAD}))
            descriptors = [connection_fd, memory_fd, folder_fd, STDERR_FD]
            socket.send_fds(self._line, [b"\0"], descriptors)
        os.close(folder_fd)
        return forked

    def receive_pids(self, until: ForkedSimulator, timeout_s: float) -> None:
        """Wait until the template has forked `until`, but not longer than `timeout_s`.

        Raises:
            EOFError, OSError: It has died.
        """
        while until.pid is None and self._control.poll(timeout_s):
            self._unborn.popleft().pid = self._control.recv()

    def exit_code(self, pid: int, timeout_s: float) -> int | None:
        """See `ForkedSimulator.wait`; afterwards the number `pid` may be another process's.

        Raises:
            EOFError, OSError: The template has died.
        """
        self._control.send(Wait(pid, timeout_s))
        while self._unborn:  # it answers in the order in which it was asked
            self._unborn.popleft().pid = self._control.recv()
        return self._control.recv()

    def end(self) -> int:
        """End it and all that it has forked; returns its exit code, negative for a signal."""
        self._process.kill()
        code = self._process.wait()
        self._control.close()
        self._line.close()
        return code


class ForkedSimulator:
    """A simulator's process. It dies with its template, and that with the policy's process."""

    def __init__(self, template: SimulatorTemplate) -> None:
        """Made by `SimulatorTemplate.fork`."""
        self._template = template
        self._code: int | None = None
        self.pid: int | None = None  # None: the template has not said it yet

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, negative for a signal; None when it still runs after `timeout_s`."""
        if self._code is None:
            try:
                self._template.receive_pids(self, timeout_s)
                if self.pid is not None:
                    self._code = self._template.exit_code(self.pid, timeout_s)
            except (EOFError, OSError):
                self._code = self._template.end()
        return self._code

    def kill(self) -> None:
        """End it at once; where the template hangs, end that, and so all that it has forked."""
        if self._code is not None:
            return
        with suppress(EOFError, OSError):
            self._template.receive_pids(self, END_S)
            if self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)  # it was not waited for: the number is its own
                return
        self._template.end()


# by process, opener, renderer, suite
_templates: dict[tuple[int, str, str, str], SimulatorTemplate] = {}


def simulator_template(opener: str, renderer: str, suite: str) -> SimulatorTemplate:
    """The template of this process, see `SimulatorTemplate`; started where there is none.

    It lives as long as this process.
    """
    key = (os.getpid(), opener, renderer, suite)
    if key not in _templates or not _templates[key].is_alive:
        _templates[key] = SimulatorTemplate(opener, renderer, suite)
    return _templates[key]


@atexit.register
def _end_templates() -> None:
    for (pid, *_), template in _templates.items():
        if pid == os.getpid():
            template.end()
