"""Plays many episodes at once: while the policy acts in one of them, the others are simulated."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import wait
from typing import Any, TypeVar

from duqsweep.errors import InfrastructureError
from duqsweep.worker import pulse
from duqsweep.worker.remote_simulator import OpeningError, Simulator
from duqsweep.worker.simulator_requests import Answer, Request

LOOK_S = 1.0  # between two looks at simulators that do not answer
OPENING_S = 900.0  # a slow network may have to give all of LIBERO to many at once
STOPPED_S = 10.0  # a process that could not look for so long was stopped, and its simulators too

# An episode: it yields what its simulator is to do, and gets the answer.
Episode = Generator[Request, Answer, None]
Key = TypeVar("Key")


class SimulatorPool:
    """Simulators of one suite, each of which plays one episode at a time."""

    def __init__(self, simulators: Sequence[Simulator], hang_s: float) -> None:
        """Start nothing yet.

        Args:
            simulators: At least one.
            hang_s: A simulator that gives no answer for so long has failed.
        """
        self.simulators = tuple(simulators)
        self._hang_s = hang_s

    def play(
        self,
        begin: Callable[[Simulator], tuple[Key, Episode] | None],
        end: Callable[[Key, InfrastructureError | None], None],
    ) -> None:
        """Play episodes until `begin` gives none and all have ended.

        Episodes are continued in the order in which their simulators answer, one at a time, in
        this thread. So the policy works on one observation at a time.

        Args:
            begin: The next episode for a simulator that is free, and its name; None: there is none
                now. It is asked again after the next `end`.
            end: Called with the name of an episode that is over, and with the error when its
                simulator failed; that simulator is then replaced.

        Raises:
            Exception: What an episode or one of the two functions raised; all other episodes are
                given up, and their simulators can be used again.
        """
        playing: dict[Simulator, tuple[Key, Episode]] = {}
        arrivals = _Arrivals(self._hang_s)
        self._fill(playing, begin, arrivals)
        while playing:
            simulator = arrivals.next()
            key, episode = playing[simulator]
            try:
                request = _continue(simulator, episode)
                if request is not None:
                    simulator.request(request)
                arrivals.expect(simulator)
                continue
            except StopIteration:
                error = None
            except OpeningError:
                raise
            except InfrastructureError as failure:
                error = failure
                simulator.close()
            del playing[simulator]
            end(key, error)
            self._fill(playing, begin, arrivals)

    def _fill(
        self,
        playing: dict[Simulator, tuple[Key, Episode]],
        begin: Callable[[Simulator], tuple[Key, Episode] | None],
        arrivals: _Arrivals,
    ) -> None:
        for simulator in self.simulators:
            if simulator not in playing:
                begun = begin(simulator)
                if begun is None:
                    continue
                playing[simulator] = begun
                simulator.request(next(begun[1]))
                arrivals.expect(simulator)

    def close(self) -> None:
        """End all simulators; the next episode starts them anew."""
        for simulator in self.simulators:
            simulator.close()


def _continue(simulator: Simulator, episode: Episode) -> Request | None:
    """Give the simulator's answer, or failure, to its episode, and get what it wants next.

    None where the simulator had something else to say, and the answer is still to come.
    """
    try:
        found = simulator.receive()
    except OpeningError:
        raise
    except InfrastructureError as error:
        return episode.throw(error)
    pulse.advance()
    return None if found is None else episode.send(found)


class _Arrivals:
    """Simulators whose answers are waited for, and the order in which those come."""

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._ready: deque[Simulator] = deque()
        self._since: dict[Simulator, float] = {}  # asked at, monotonic
        self._looked_at = time.monotonic()

    def expect(self, simulator: Simulator) -> None:
        """An answer of `simulator` is to come."""
        self._since[simulator] = time.monotonic()

    def next(self) -> Simulator:
        """The simulator whose answer, or end, came first; waits for one."""
        while True:
            self._look()
            self._end_hung()
            if self._ready:
                return self._ready.popleft()

    def _look(self) -> None:
        waiting: dict[Any, Simulator] = {}
        for simulator in list(self._since):
            if simulator.connection is None:
                self._arrived(simulator)
            else:
                waiting[simulator.connection] = simulator
        if waiting:
            for connection in wait(list(waiting), 0.0 if self._ready else LOOK_S):
                self._arrived(waiting[connection])

    def _arrived(self, simulator: Simulator) -> None:
        del self._since[simulator]
        self._ready.append(simulator)

    def _end_hung(self) -> None:
        """Kill simulators that have been silent for too long; their deaths then arrive."""
        now = time.monotonic()
        if now - self._looked_at > STOPPED_S:
            for simulator in self._since:
                self._since[simulator] += now - self._looked_at
        self._looked_at = now
        for simulator, since in self._since.items():
            patience_s = max(self._hang_s, OPENING_S) if simulator.is_opening else self._hang_s
            if now - since > patience_s:
                simulator.give_up(f"the simulator gave no answer for {patience_s:g} s")
