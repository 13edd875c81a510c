"""Plays many episodes at once: while the policy acts in one of them, the others are simulated."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from duqsweep.errors import InfrastructureError
from duqsweep.seams import Environment
from duqsweep.spec import LedgerEntry
from duqsweep.worker import pulse
from duqsweep.worker.episode import Episode, Wish
from duqsweep.worker.policy_calls import Acted, Ask, PolicyCalls
from duqsweep.worker.remote_simulator import LocalSimulator, OpeningError, Simulator

LOOK_S = 1.0  # between two looks at simulators that do not answer
OPENING_S = 900.0  # a slow network may have to give all of LIBERO to many at once
STOPPED_S = 10.0  # a process that could not look for so long was stopped, and its simulators too

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

    @classmethod
    def in_process(cls, open_environment: Callable[[], Environment]) -> SimulatorPool:
        """One simulator, in this process, where nothing else uses a GPU."""
        return cls([LocalSimulator(open_environment)], hang_s=OPENING_S)

    def begin_to_open(self, count: int) -> None:
        """Have the first `count` simulators load LIBERO, while this process does something else."""
        for simulator in self.simulators[:count]:
            simulator.open()

    def begin_to_build(self, entries: Sequence[LedgerEntry]) -> None:
        """Have simulators build the tasks of episodes that `play` will give them, in this order."""
        for simulator, entry in zip(self.simulators, entries, strict=False):
            simulator.build(entry)

    def wait_until_open(self) -> None:
        """Wait until no simulator loads anything any more.

        Raises:
            OpeningError: One cannot be opened on this machine.
        """
        with closing(_Arrivals(self._hang_s)) as arrivals:
            for simulator in self.simulators:
                if simulator.is_opening:
                    arrivals.expect(simulator)
            while arrivals.are_expected:
                opened = arrivals.next(wait=True)
                assert opened is not None
                opened.receive()
                pulse.advance()

    def play(
        self,
        begin: Callable[[Simulator], tuple[Key, Episode] | None],
        end: Callable[[Key, InfrastructureError | None], None],
        calls: PolicyCalls[Simulator],
    ) -> None:
        """Play episodes until `begin` gives none and all have ended.

        Episodes ask for the policy in the order in which their simulators answer, and this thread
        alone calls it. While the policy computes, the next answers are received.

        Args:
            begin: The next episode for a simulator that is free, and its name; None: there is none
                now. It is asked again after the next `end`.
            end: Called with the name of an episode that is over, and with the error when its
                simulator failed; that simulator is then replaced.
            calls: Of the policy; nobody else uses it.

        Raises:
            Exception: What an episode, the policy or one of the two functions raised; all other
                episodes are given up, and their simulators and the policy can be used again.
        """
        with closing(_Arrivals(self._hang_s)) as arrivals:
            try:
                self._play(begin, end, _Game(calls, arrivals))
            finally:
                calls.give_up()

    def _play(
        self,
        begin: Callable[[Simulator], tuple[Key, Episode] | None],
        end: Callable[[Key, InfrastructureError | None], None],
        game: _Game,
    ) -> None:
        playing: dict[Simulator, tuple[Key, Episode]] = {}
        self._fill(playing, begin, game)
        while playing:
            simulator, acted = game.next()
            key, episode = playing[simulator]
            try:
                wish = _continue(simulator, episode) if acted is None else episode.send(acted)
                game.wait_for(simulator, wish)
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
            self._fill(playing, begin, game)

    def _fill(
        self,
        playing: dict[Simulator, tuple[Key, Episode]],
        begin: Callable[[Simulator], tuple[Key, Episode] | None],
        game: _Game,
    ) -> None:
        for simulator in self.simulators:
            if simulator not in playing:
                begun = begin(simulator)
                if begun is None:
                    continue
                playing[simulator] = begun
                game.wait_for(simulator, next(begun[1]))

    def close(self) -> None:
        """End all simulators; the next episode starts them anew."""
        for simulator in self.simulators:
            simulator.close()


def _continue(simulator: Simulator, episode: Episode) -> Wish | None:
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


@dataclass(frozen=True)
class _Game:
    """What the episodes wait for: the policy, and their simulators."""

    calls: PolicyCalls[Simulator]
    arrivals: _Arrivals

    def wait_for(self, simulator: Simulator, wish: Wish | None) -> None:
        """An episode goes on when its wish is fulfilled; None: that of before."""
        if isinstance(wish, Ask):
            self.calls.begin(simulator, wish)
            return
        if wish is not None:
            simulator.request(wish)
        self.arrivals.expect(simulator)

    def next(self) -> tuple[Simulator, Acted | None]:
        """Whose episode goes on, with the actions that it asked for; None: the simulator answers.

        Waits by looking again and again while the policy computes: to be woken up takes longer.
        """
        while True:
            acted = self.calls.take(wait=self.calls.are_full)
            if acted is not None:
                return acted
            simulator = self.arrivals.next(wait=not self.calls.any)
            if simulator is not None:
                return simulator, None


class _Arrivals:
    """Simulators whose answers are waited for, and the order in which those come."""

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._ready: deque[Simulator] = deque()
        self._since: dict[Simulator, float] = {}  # asked at, monotonic
        self._lines: dict[int, Simulator] = {}  # by the descriptor that the poll watches
        self._poll = select.epoll()
        self._looked_at = time.monotonic()

    def close(self) -> None:
        """Watch nothing any more."""
        self._poll.close()

    @property
    def are_expected(self) -> bool:
        """Whether some answer is still to come."""
        return bool(self._since or self._ready)

    def expect(self, simulator: Simulator) -> None:
        """An answer of `simulator` is to come."""
        if simulator.connection is None:
            self._ready.append(simulator)
            return
        self._since[simulator] = time.monotonic()
        line = simulator.connection.fileno()
        self._lines[line] = simulator
        self._poll.register(line, select.EPOLLIN)

    def next(self, wait: bool) -> Simulator | None:
        """The simulator whose answer, or end, came first; None: none has, and `wait` is false."""
        while True:
            self._look(LOOK_S if wait and not self._ready else 0.0)
            self._end_hung()
            if self._ready:
                return self._ready.popleft()
            if not wait:
                return None

    def _look(self, wait_s: float) -> None:
        for line, _ in self._poll.poll(wait_s):
            self._poll.unregister(line)
            simulator = self._lines.pop(line)
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
