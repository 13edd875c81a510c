"""Signals that end a controller: it leaves in order, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Timer
from types import FrameType

Handler = Callable[[int, "FrameType | None"], None]


class HandOver(KeyboardInterrupt):
    """The job of this process is about to end, and its next run shall go on."""


@contextmanager
def terminate_as_interrupt(hand_over_after_s: float | None = None) -> Iterator[None]:
    """SIGTERM, which schedulers and `timeout` send, interrupts the block as Ctrl-C does.

    Args:
        hand_over_after_s: After so long, and at SIGUSR2, which SLURM may send before it preempts a
            job, `HandOver` is raised. SLURM's own signal before the time limit may come half a
            minute late, or not at all. None: never.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise HandOver if number == signal.SIGUSR2 else KeyboardInterrupt

    with ExitStack() as undo:
        _handle(undo, signal.SIGTERM, interrupt)
        if hand_over_after_s is not None:
            _handle(undo, signal.SIGUSR2, interrupt)
            own_signal = partial(os.kill, os.getpid(), signal.SIGUSR2)
            timer = Timer(max(hand_over_after_s, 0.0), own_signal)
            timer.daemon = True
            timer.start()
            undo.callback(timer.cancel)
        yield


def _handle(undo: ExitStack, number: signal.Signals, handler: Handler) -> None:
    undo.callback(signal.signal, number, signal.signal(number, handler))
