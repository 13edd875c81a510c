"""Regular expressions of a configuration, tried on the policy's layers within a second each."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from duqsweep.errors import ConfigError

LIMIT_S = 1.0  # a sound one takes milliseconds


def check_regexes(regexes: Iterable[str], layers: Collection[str]) -> None:
    """Raise ConfigError for a regex whose search takes too long.

    One that does not compile is reported where it is used.
    """
    for regex in dict.fromkeys(regexes):
        try:
            pattern = re.compile(regex)
        except re.error:
            continue
        try:
            with _time_limit(LIMIT_S):
                for name in layers:
                    pattern.search(name)
        except TimeoutError as error:
            raise ConfigError(
                f"regex {regex!r} takes more than {LIMIT_S:g} s on the names of layers: a "
                "repetition inside a repetition, e.g. (a+)+, tries every way to split a name; "
                "rewrite it without"
            ) from error


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`; other threads have no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
