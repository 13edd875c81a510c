"""An environment without MuJoCo for simulators' processes, with mishaps on demand."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import InfrastructureError
from duqsweep.seams import Observation
from duqsweep.spec import LedgerEntry, SuiteSpec

OPENER = "light_environment:open_light"
KEPT = 2  # tasks


class LightEnvironment:
    """Its state is a number; the files `killed`, `segfault`, `hung` and `error` cause a mishap.

    Each file names an initial state, whose first step has the mishap, once: it removes the file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entry: LedgerEntry | None = None
        self._position = 0.0
        self._tasks: list[int] = []

    def reset(self, entry: LedgerEntry) -> Observation:
        if entry.task not in self._tasks:
            self._tasks = [*self._tasks, entry.task][-KEPT:]
            with (self._folder / "built").open("a") as file:
                file.write(f"{os.getpid()} {entry.task}\n")
        self._entry, self._position = entry, float(entry.init_state)
        return self.observe()

    def step(self, action: NDArray[np.float64]) -> bool:
        assert self._entry is not None
        self._mishap(self._entry.init_state)
        self._position += float(action[0]) / 3
        return self._position > 10.5

    def observe(self) -> Observation:
        rows = np.arange(64 * 64 * 3, dtype=np.float64).reshape(64, 64, 3)
        picture = (rows * self._position).astype(np.int64) % 256
        return Observation(
            images={"agentview": picture.astype(np.uint8), "wrist": picture[::-1].astype(np.uint8)},
            eef_pos=np.array([self._position, 1 / 3, 0.2]),
            eef_quat=np.array([0.0, 0.1, 0.0, 1.0]),
            gripper_qpos=np.array([0.02, -0.02]),
            instruction=f"task {self._entry.task if self._entry else 0}",
        )

    def built(self) -> frozenset[tuple[int, int | None]]:
        return frozenset((task, None) for task in self._tasks)

    def close(self) -> None:
        pass

    def _mishap(self, init_state: int) -> None:
        for path in self._folder.iterdir():
            try:
                if path.name == "built" or path.read_text() != str(init_state):
                    continue
                path.unlink()
            except FileNotFoundError:  # another simulator's mishap
                continue
            if path.name == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif path.name == "segfault":
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no dump
                os.kill(os.getpid(), signal.SIGSEGV)
            elif path.name == "hung":
                time.sleep(3600)
            else:
                raise InfrastructureError("the renderer lost its context")


def open_light(suite: SuiteSpec) -> LightEnvironment:
    assert suite.assets is not None
    folder = Path(os.path.expandvars(suite.assets))
    if not folder.exists():
        raise InfrastructureError("no renderer")
    return LightEnvironment(folder)
