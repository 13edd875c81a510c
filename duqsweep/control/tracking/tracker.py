"""MLflow beside a running sweep: a thread that mirrors the files and never slows or fails it."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from duqsweep.control.tracking.mirror import Mirror
from duqsweep.masking import masked

if TYPE_CHECKING:
    from duqsweep.control.front.records import Front
    from duqsweep.control.trials.reader import TrialReader

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 30.0  # after a failed update; doubles with each further one
_LONGEST_PAUSE_S = 600.0
_GATHER_S = 2.0  # events of this long become one update; of longer after a slow one:
_SHARE = 5  # events of at least so many times as long as the last update took, up to:
_LONGEST_GATHER_S = 60.0


class SweepTracker(Protocol):
    """Receives the loop's events and keeps a copy of the sweep. No call waits, none raises."""

    def sweep_started(self) -> None:
        """The sweep's folder exists."""

    def trial_changed(self, number: int) -> None:
        """A file of this trial changed."""

    def front_changed(self, front: Front) -> None:
        """front.json changed."""

    def close(self, timeout_s: float) -> str | None:
        """Copy what is left, for at most `timeout_s`; returns what is missing and why, if so."""


class NullTracker:
    """Keeps no copy."""

    def sweep_started(self) -> None:
        """Nothing."""

    def trial_changed(self, number: int) -> None:
        """Nothing."""

    def front_changed(self, front: Front) -> None:
        """Nothing."""

    def close(self, timeout_s: float) -> str | None:
        """Nothing is missing."""
        return None


class MlflowTracker:
    """Mirrors the folder in a thread of its own; after each further failure it pauses longer."""

    def __init__(
        self,
        sweep_dir: Path,
        uri: str | None = None,
        first_pause_s: float = _FIRST_PAUSE_S,
        reader: TrialReader | None = None,
    ) -> None:
        """Prepare; nothing is sent before `sweep_started`.

        Args:
            sweep_dir: The sweep's folder.
            uri: MLflow's tracking URI; None: a database in the folder.
            first_pause_s: After the first failed update.
            reader: Of the sweep's trials, if one is there; see `Mirror`.
        """
        self._dir = sweep_dir
        self._mirror = Mirror(sweep_dir, uri, reader)
        self._first_pause_s = first_pause_s
        self._changed = threading.Event()
        self._numbers: SimpleQueue[int] = SimpleQueue()  # of trials that changed
        self._front: Front | None = None
        self._closing = threading.Event()
        self._problem: str | None = "it has not answered yet"
        self.failures = 0  # updates that did not succeed
        self._thread = threading.Thread(target=self._run, name="mlflow-mirror", daemon=True)

    def sweep_started(self) -> None:
        """See `SweepTracker`."""
        self._changed.set()
        if not self._thread.is_alive() and not self._closing.is_set():
            self._thread.start()

    def trial_changed(self, number: int) -> None:
        """See `SweepTracker`."""
        self._numbers.put(number)
        self._changed.set()

    def front_changed(self, front: Front) -> None:
        """See `SweepTracker`."""
        self._front = front
        self._changed.set()

    @property
    def is_behind(self) -> bool:
        """Whether events wait for the next update."""
        return self._changed.is_set()

    def close(self, timeout_s: float) -> str | None:
        """See `SweepTracker`."""
        self._closing.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._problem = f"it was not done within {timeout_s:.0f} s"
        if self._problem is None:
            return None
        return (
            f"MLflow lacks part of this sweep: {self._problem}. Nothing is lost; catch up with: "
            f"python -m duqsweep sync {shlex.quote(str(self._dir))}"
        )

    def _run(self) -> None:
        pause_s = self._first_pause_s
        gather_s = _GATHER_S
        while True:
            self._changed.wait()
            self._closing.wait(gather_s)
            self._changed.clear()  # before the look at closing, or its wake-up could be lost
            last = self._closing.is_set()
            begun_s = time.monotonic()
            succeeded = self._update(last)
            took_s = time.monotonic() - begun_s
            gather_s = min(max(_GATHER_S, _SHARE * took_s), _LONGEST_GATHER_S)
            if succeeded:
                pause_s = self._first_pause_s
            elif not last:
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                self._changed.set()
            if last:
                return

    def _update(self, last: bool) -> bool:
        started = time.monotonic()
        try:
            changed = {self._numbers.get() for _ in range(self._numbers.qsize())}
            self._mirror.update(last, None if last else changed, self._front)
        except Exception as error:  # whatever a server can do must not reach the sweep
            self.failures += 1
            self._problem = masked(" ".join(str(error).split())[:300]) or type(error).__name__
            log.info("MLflow: %s", self._problem)
            log.debug("MLflow update failed", exc_info=True)
            return False
        log.debug("MLflow updated in %.1f s", time.monotonic() - started)
        self._problem = None
        return True


def open_tracker(
    name: str, sweep_dir: Path, uri: str | None = None, reader: TrialReader | None = None
) -> SweepTracker:
    """The tracker of a configuration: `none`, or MLflow at `uri` (None: in the sweep's folder)."""
    return NullTracker() if name == "none" else MlflowTracker(sweep_dir, uri, reader=reader)
