"""A process that has loaded LIBERO, and that each simulator of a policy is a fork of.

`python -m duqsweep.worker.simulator_template CONTROL PARENT OPENER RENDERER SUITE`, started by
`forked_simulator`. Loading takes a CPU second and 350 MB, which the simulators share. It draws
nothing: neither OpenGL nor threads would survive a fork. torch is never loaded here: OpenGL and
CUDA in one process abort at random.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from duqsweep.processes import die_with
from duqsweep.worker.simulator_process import serve
from duqsweep.worker.simulator_requests import DESCRIPTORS, OPEN_LIBERO, Fork, Wait

# Of the whole job or terminal: whoever owns this process decides when it ends.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
LOOK_S = 0.005  # between two looks at a simulator that ends
NOTHING = ""  # an opener of which nothing is loaded before forking

log = logging.getLogger(__name__)


def main(control_fd: int, parent: int, opener: str, renderer: str, suite: str) -> None:
    """Load what `opener` needs, then fork on request until the other end is closed or dies."""
    if not die_with(parent):
        os._exit(0)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s simulator: %(message)s"
    )
    gc.disable()  # what is imported stays: collections meanwhile take a seventh of the time
    _load(opener, renderer, suite)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        log.warning("%s starts threads as it is loaded: each simulator loads it alone", opener)
        words = ["-u", "-m", "duqsweep.worker.simulator_template", str(control_fd), str(parent)]
        os.execv(sys.executable, [sys.executable, *words, NOTHING, renderer, suite])
    gc.collect()
    gc.freeze()  # so that collections in the forks leave shared memory as it is
    gc.enable()
    # Raised when the policy's process has gone.
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):
        _fork_on_request(control_fd)
    os._exit(0)


def _load(opener: str, renderer: str, suite: str) -> None:
    """Load what all simulators need."""
    try:
        if opener != NOTHING:
            importlib.import_module(opener.partition(":")[0])
        if opener == OPEN_LIBERO:
            from duqsweep.envs.libero import preload

            preload(renderer, suite)
    except Exception as error:  # each simulator will meet it as it opens, and say so
        log.debug("%s cannot be loaded beforehand: %s", opener, error)


def _fork_on_request(control_fd: int) -> None:
    me, control = os.getpid(), Connection(control_fd)
    while True:
        request = control.recv()
        if isinstance(request, Wait):
            control.send(_wait(request))
            continue
        assert isinstance(request, Fork)
        with socket.socket(fileno=os.dup(control_fd)) as line:
            _, descriptors, _, _ = socket.recv_fds(line, 1, DESCRIPTORS)
        pid = os.fork()
        if pid == 0:
            try:
                control.close()
                if die_with(me):
                    _become(request, *descriptors)
            finally:
                # Without the destructors of OpenGL and MuJoCo, some of which abort at exit.
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(pid)


def _become(
    request: Fork, connection_fd: int, memory_fd: int, folder_fd: int, stderr_fd: int
) -> None:
    os.fchdir(folder_fd)
    os.dup2(stderr_fd, sys.stderr.fileno())
    os.close(folder_fd)
    os.close(stderr_fd)
    os.environ.clear()
    os.environ.update(request.environment)
    serve(connection_fd, memory_fd)


def _wait(request: Wait) -> int | None:
    """Exit code of a simulator, negative for a signal; None while it runs."""
    deadline = time.monotonic() + request.timeout_s
    while True:
        pid, status = os.waitpid(request.pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
