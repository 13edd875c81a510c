"""Whose fault a broken evaluation is: the policy's, or the machine's."""

from __future__ import annotations

import mmap
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from duqsweep.assignment import FailureKind
from duqsweep.errors import DuqsweepError, InfrastructureError
from duqsweep.worker import pulse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from duqsweep.seams import Environment, Observation
    from duqsweep.spec import LedgerEntry

# Of a process that someone or something else ended; a program that crashes gets other signals.
FROM_OUTSIDE = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
# What CUDA says of a GPU or driver that does not work, whatever runs on it.
BROKEN_GPU = (
    "no cuda-capable device",
    "cuda-capable device(s) is/are busy",
    "cuda driver",
    "nvidia driver",
    "ecc error",
    "system not yet initialized",
)

# Shared with the processes that are forked from this one: 1 while the simulator runs.
_in_simulator = mmap.mmap(-1, 1)


def is_machines(error: BaseException) -> bool:
    """Whether an exception is the machine's fault, and the same policy may succeed elsewhere."""
    if isinstance(error, DuqsweepError):  # raised on purpose: its class says whose fault it is
        return isinstance(error, InfrastructureError)
    if isinstance(error, (OSError, ImportError)):
        return True
    return any(text in str(error).lower() for text in BROKEN_GPU)


def kind_of_death(exit_code: int | None) -> FailureKind:
    """What the death of an evaluation's process means, when there was enough memory."""
    if exit_code is not None and -exit_code in FROM_OUTSIDE:
        return "lost"
    return "node" if _in_simulator[0] else "crash"


def forget_simulator() -> None:
    """A new evaluation begins: its process is not in the simulator."""
    _in_simulator[0] = 0


@contextmanager
def in_simulator() -> Iterator[None]:
    """Note that a sudden death of this process would be the simulator's or the renderer's."""
    pulse.advance()
    before = _in_simulator[0]
    _in_simulator[0] = 1
    try:
        yield
    finally:
        _in_simulator[0] = before


class WatchedEnvironment:
    """An environment whose crashes are distinguished from the policy's."""

    def __init__(self, environment: Environment) -> None:
        """Watch `environment`."""
        self._environment = environment

    def reset(self, entry: LedgerEntry) -> Observation:
        """See `Environment`."""
        with in_simulator():
            return self._environment.reset(entry)

    def step(self, action: NDArray[np.float64]) -> bool:
        """See `Environment`."""
        with in_simulator():
            return self._environment.step(action)

    def observe(self) -> Observation:
        """See `Environment`."""
        with in_simulator():
            return self._environment.observe()

    def built(self) -> frozenset[tuple[int, int | None]]:
        """See `Environment`."""
        return self._environment.built()

    def close(self) -> None:
        """See `Environment`."""
        with in_simulator():
            self._environment.close()
