"""What the process of a simulator does: it draws and steps for a policy in another process."""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from duqsweep.errors import DuqsweepError, InfrastructureError
from duqsweep.seams import Environment
from duqsweep.worker.shared_observation import SharedObservation
from duqsweep.worker.simulator_requests import Opening, Reply, Request, answer


def serve(connection_fd: int, memory_fd: int) -> None:
    """Answer requests until the other end is closed or dies."""
    connection: Connection[Reply, Any] = Connection(connection_fd)
    # Raised when the policy's process has gone.
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):
        _serve(connection, memory_fd)


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
