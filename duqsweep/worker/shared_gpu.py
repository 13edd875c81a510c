"""Workers that share a GPU take turns where it matters: latency is measured on an idle GPU.

One worker at a time prepares a trial, while the others play episodes; when it measures, their
policies wait. There are three lock files per GPU, in a folder of this user on this machine; the
system frees them when their holder dies:

    prepare   held by the worker that loads, compiles and measures
    gate      held by one that measures, also while it waits for calls of others to end
    calls     shared by the calls of all policies in episodes
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from duqsweep import private
from duqsweep.worker import pulse
from duqsweep.worker.lock import not_inherited
from duqsweep.worker.phases import phase

POLL_S = 0.002
SETTLE_S = 0.2  # until simulators and renderers of the other workers stand still


class SharedGpu:
    """One worker's turns on its GPU."""

    def __init__(self, folder: Path | None, gpu: str) -> None:
        """Open the lock files.

        Args:
            folder: Where they lie; None: nobody shares the device.
            gpu: Its name, unique on this machine.
        """
        self._open = ExitStack()
        self._files: dict[str, int] = {}
        self._joined = 0  # calls that have begun and not ended
        if folder is None:
            return
        for name in ("prepare", "gate", "calls"):
            file = self._open.enter_context((folder / f"{gpu}.{name}").open("a"))
            self._open.enter_context(not_inherited(file.fileno()))
            self._files[name] = file.fileno()

    @classmethod
    def of(cls, device: str) -> SharedGpu:
        """The GPU that torch uses; a CPU is not shared in this sense."""
        if device != "cuda":
            return cls(None, device)
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return cls(private.machine_folder("gpus"), str(properties.uuid))

    def close(self) -> None:
        """Close the files, which frees what is locked."""
        self._open.close()

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """No other worker prepares a trial on this GPU; their episodes go on."""
        with ExitStack() as turn:
            if self._files:
                with phase("other trials on this GPU"):
                    turn.enter_context(self._held("prepare", fcntl.LOCK_EX))
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other worker calls its policy on this GPU."""
        with self._held("gate", fcntl.LOCK_EX), self._held("calls", fcntl.LOCK_EX):
            if self._files:
                time.sleep(SETTLE_S)
            yield

    def join_calls(self) -> bool:
        """Take part until `leave_calls`; does nothing and returns false where another measures.

        Nobody measures on this GPU before each that has joined has left.
        """
        if self._files:
            gate = self._files["gate"]
            if not _try(gate, fcntl.LOCK_SH):
                return False
            _try(self._files["calls"], fcntl.LOCK_SH)  # free: who holds it alone has the gate
            fcntl.flock(gate, fcntl.LOCK_UN)
        self._joined += 1
        return True

    def leave_calls(self) -> None:
        """A call that has joined is over."""
        self._joined -= 1
        if self._files and not self._joined:
            fcntl.flock(self._files["calls"], fcntl.LOCK_UN)

    @contextmanager
    def _held(self, name: str, kind: int) -> Iterator[None]:
        file = self._files.get(name)
        if file is None:
            yield
            return
        while not _try(file, kind):
            pulse.advance()  # to wait is no hang
            time.sleep(POLL_S)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _try(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
