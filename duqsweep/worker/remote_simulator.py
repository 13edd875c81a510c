"""A simulator in a process of its own, seen from the process of the policy."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Protocol

from duqsweep.errors import InfrastructureError
from duqsweep.seams import Environment
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker.blame import WatchedEnvironment, in_simulator
from duqsweep.worker.forked_simulator import END_S, ForkedSimulator, simulator_template
from duqsweep.worker.shared_observation import SharedObservation
from duqsweep.worker.simulator_requests import (
    OPEN_LIBERO,
    Answer,
    Opening,
    Reply,
    Request,
    Reset,
    answer,
)

# A signal to all processes of a job may reach a simulator a little before the policy's process;
# the simulator's death is then not to be recorded as an error of its episode.
SIGNAL_WAIT_S = 0.5


class OpeningError(InfrastructureError):
    """A simulator cannot be opened on this machine: no episode's fault."""


class Simulator(Protocol):
    """Plays one episode at a time. A request is answered later, each by one `receive`."""

    @property
    def connection(self) -> Connection[object, Reply] | None:
        """What becomes readable when there is something to `receive`; None: there is already."""

    @property
    def is_opening(self) -> bool:
        """Whether it loads LIBERO now."""

    def open(self) -> None:
        """Begin to load LIBERO, unless that has begun already."""

    def build(self, entry: LedgerEntry) -> None:
        """Begin to build the episode's task, if that can be done beside; the next is `request`."""

    def request(self, request: Request) -> None:
        """Begin to do something; opens the simulator where it is not open."""

    def receive(self) -> Answer | None:
        """The answer to the last request; None: another message came first.

        Raises:
            OpeningError: It cannot be opened.
            InfrastructureError: The simulator failed, or its process died.
            DuqsweepError: What else the environment raised.
        """

    def holds(self, entry: LedgerEntry) -> bool:
        """Whether the episode's task is built already."""

    def give_up(self, why: str) -> None:
        """End it while its answer is waited for; `receive` then raises, and says why."""

    def close(self) -> None:
        """Let it go, whatever it does; the next request opens another."""


class RemoteSimulator:
    """A `Simulator` in a process that is forked from this process's `simulator_template`."""

    def __init__(self, suite: SuiteSpec, opener: str = OPEN_LIBERO) -> None:
        """Start nothing yet; `suite.renderer` must be a renderer, not auto."""
        self._opening = Opening(suite, opener)
        self._process: ForkedSimulator | None = None
        self._connection: Connection[object, Reply] | None = None
        self._memory: SharedObservation | None = None
        self._unanswered = 0
        self._is_opening = False
        self._given_up: str | None = None
        self._built: frozenset[tuple[int, int | None]] = frozenset()

    @property
    def connection(self) -> Connection[object, Reply] | None:
        """See `Simulator`."""
        assert self._connection is not None
        return self._connection

    @property
    def is_opening(self) -> bool:
        """See `Simulator`."""
        return self._is_opening

    def open(self) -> None:
        """Ask for the process, which is there once the template has loaded LIBERO; do not wait.

        The first call starts the template. The system ends it with the thread that calls this,
        which should be the main one.
        """
        if self._process is not None:
            return
        suite, (ours, theirs) = self._opening.suite, socket.socketpair()
        self._memory = SharedObservation(suite.image_px)
        template = simulator_template(self._opening.opener, suite.renderer, suite.name)
        with theirs:
            self._process = template.fork(theirs.fileno(), self._memory.descriptor)
        self._connection = Connection(ours.detach())
        self._is_opening, self._given_up = True, None
        self._send(self._opening)

    def build(self, entry: LedgerEntry) -> None:
        """See `Simulator`; the answer, or error, is that of an episode which was given up."""
        self.request(Reset(entry))

    def request(self, request: Request) -> None:
        """See `Simulator`."""
        self.open()
        self._send(request)

    def receive(self) -> Answer | None:
        """See `Simulator`."""
        assert self._connection is not None
        assert self._memory is not None
        try:
            reply = self._connection.recv()
        except (EOFError, ConnectionResetError):
            said = self._given_up or f"the simulator's process {self._death()}"
            raise (OpeningError if self._is_opening else InfrastructureError)(said) from None
        self._unanswered -= 1
        if self._is_opening:
            if isinstance(reply.error, InfrastructureError):
                raise OpeningError(str(reply.error)) from reply.error
            if reply.error is not None:
                raise reply.error
            self._is_opening = False
            return None
        if self._unanswered:
            return None  # to a request of an episode that was given up
        if reply.error is not None:
            raise reply.error
        assert reply.answer is not None
        self._built = reply.built
        if reply.instruction is None:
            return reply.answer
        observation = self._memory.read(reply.instruction)
        return Answer(observation, reply.answer.success, reply.answer.steps, reply.answer.sim_s)

    def holds(self, entry: LedgerEntry) -> bool:
        """See `Simulator`."""
        return (entry.task, None) in self._built or (entry.task, entry.seed) in self._built

    def give_up(self, why: str) -> None:
        """See `Simulator`."""
        assert self._process is not None
        self._given_up = why
        self._process.kill()

    def close(self) -> None:
        """See `Simulator`."""
        if self._process is None:
            return
        assert self._connection is not None
        assert self._memory is not None
        self._connection.close()
        if self._unanswered:
            self._process.kill()
        if self._process.wait(END_S) is None:
            self._process.kill()
            self._process.wait(END_S)
        self._memory.close()
        self._process = self._connection = self._memory = None
        self._unanswered, self._built, self._is_opening = 0, frozenset(), False

    def _send(self, message: object) -> None:
        assert self._connection is not None
        self._unanswered += 1
        with suppress(BrokenPipeError, ConnectionResetError):  # `receive` says that it has died
            self._connection.send(message)

    def _death(self) -> str:
        assert self._process is not None
        code = self._process.wait(END_S)
        if code is None:
            return "closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        if -code == signal.SIGKILL:
            time.sleep(SIGNAL_WAIT_S)
        return f"was killed by {signal.Signals(-code).name}"


class LocalSimulator:
    """A `Simulator` in this process: a request is done before `request` returns."""

    connection = None
    is_opening = False

    def __init__(self, open_environment: Callable[[], Environment]) -> None:
        """Play in the environment that `open_environment` gives."""
        self._open = open_environment
        self._environment: WatchedEnvironment | None = None
        self._answer: Answer | Exception | None = None

    def open(self) -> None:
        """See `Simulator`."""
        if self._environment is None:
            with in_simulator():
                self._environment = WatchedEnvironment(self._open())

    def build(self, entry: LedgerEntry) -> None:
        """See `Simulator`; here it would take as long as later."""

    def request(self, request: Request) -> None:
        """See `Simulator`."""
        self.open()
        assert self._environment is not None
        try:
            self._answer = answer(self._environment, request)
        except Exception as error:  # raised by `receive`, as from another process
            self._answer = error

    def receive(self) -> Answer | None:
        """See `Simulator`."""
        found, self._answer = self._answer, None
        if isinstance(found, Exception):
            raise found
        return found

    def holds(self, entry: LedgerEntry) -> bool:
        """See `Simulator`."""
        return True

    def give_up(self, why: str) -> None:
        """See `Simulator`; the answer is always there, so nobody waits."""

    def close(self) -> None:
        """See `Simulator`."""
        if self._environment is not None:
            kept, self._environment = self._environment, None
            kept.close()
