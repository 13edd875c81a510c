"""The process that simulates: it draws and steps for a policy in another process.

`python -m duqsweep.worker.simulator_process CONNECTION MEMORY PARENT`, started by
`remote_simulator`. torch is never loaded here: OpenGL and CUDA in one process abort at random.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from duqsweep.errors import DuqsweepError, InfrastructureError
from duqsweep.seams import Environment
from duqsweep.worker.shared_observation import SharedObservation
from duqsweep.worker.simulator_requests import Opening, Reply, Request, answer

PR_SET_PDEATHSIG = 1  # prctl(2)
# Of the whole job or terminal: whoever owns this process decides when it ends.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)


def main(connection_fd: int, memory_fd: int, parent: int) -> None:
    """Answer requests until the other end is closed or dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s simulator: %(message)s"
    )
    connection: Connection[Reply, Any] = Connection(connection_fd)
    # Raised when the policy's process has gone.
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):
        _serve(connection, memory_fd)
    # Without the destructors of OpenGL and MuJoCo, some of which abort at exit.
    os._exit(0)


def _serve(connection: Connection[Reply, Any], memory_fd: int) -> None:
    opening = connection.recv()
    assert isinstance(opening, Opening)
    try:
        module, _, function = opening.opener.partition(":")
        environment: Environment = getattr(importlib.import_module(module), function)(opening.suite)
        connection.send(Reply())
    except Exception as error:
        connection.send(Reply(error=_ours(error)))
        return
    memory = SharedObservation(opening.suite.image_px, memory_fd)
    while True:
        request = connection.recv()
        try:
            reply = _reply(environment, memory, request)
        except Exception as error:
            reply = Reply(error=_ours(error))
        connection.send(reply)


def _reply(environment: Environment, memory: SharedObservation, request: Request) -> Reply:
    found = answer(environment, request)
    instruction = None
    if found.observation is not None:
        memory.write(found.observation)
        instruction = found.observation.instruction
    return Reply(replace(found, observation=None), instruction, environment.built())


def _ours(error: Exception) -> DuqsweepError:
    """An error that the policy's process can read; whatever is not ours is the machine's fault."""
    if isinstance(error, DuqsweepError):
        return error
    return InfrastructureError(f"the simulator failed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
