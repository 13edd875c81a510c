"""How a command that runs a sweep may end before the sweep does, and what it leaves behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from commands import MODULE, run, start

from duqsweep import files
from duqsweep.mailbox import Mailbox
from duqsweep.processes import start_ticks

INTERRUPTED = 130
LONGEST_S = 240.0  # until a run gets as far as it must, on a busy machine
LONGEST_PAUSE_S = 1.0  # between an observed step and the signal: about an episode


@dataclass(frozen=True)
class Life:
    """What one command left behind."""

    code: int
    out: str
    err: str


@dataclass
class Battered:
    """A sweep that needs several runs of its command."""

    folder: Path
    words: Sequence[str]
    program: Sequence[str] = MODULE
    environment: dict[str, str] = field(default_factory=dict)
    moments: random.Random = field(default_factory=lambda: random.Random(20))
    lives: dict[str, Life] = field(default_factory=dict)  # how it ended → the command
    ledgers: list[bytes] = field(default_factory=list)  # after each run

    def live(self, fate: str, *more: str) -> None:
        """Run the command with `more` words until it has done a step or two, then end it so."""
        log = self.folder.parent / f"{fate}.txt"
        with log.open("w") as stdout:
            process = self._start(more, stdout)
        if fate == "all killed":  # first it must find what "controller killed" left
            wait_until(process, lambda: "re-attached" in log.read_text())
        steps = written(self.folder)
        wait_until(process, lambda: written(self.folder) > steps)
        seen = written(self.folder)
        end = time.monotonic() + self.moments.uniform(0, LONGEST_PAUSE_S)
        wait_until(process, lambda: written(self.folder) > seen or time.monotonic() > end)
        FATES[fate](process, self.folder)
        _, err = process.communicate(timeout=LONGEST_S)
        self._note(fate, Life(process.returncode, log.read_text(), err))

    def finish(self, *more: str) -> None:
        """Run the command to the end of the sweep."""
        process = self._start(more, subprocess.PIPE)
        out, err = process.communicate(timeout=LONGEST_S)
        self._note("last", Life(process.returncode, out, err))

    def _start(self, more: Sequence[str], stdout: object) -> subprocess.Popen[str]:
        cwd = self.folder.parent
        words = (*self.words, *more)
        return start(words, cwd, stdout, self.program, **self.environment)

    def _note(self, name: str, life: Life) -> None:
        self.lives[name] = life
        self.ledgers.append((self.folder / files.LEDGER_JSON).read_bytes())


def kill_controller(process: subprocess.Popen[str], folder: Path) -> None:
    os.kill(process.pid, signal.SIGKILL)


def kill_everything(process: subprocess.Popen[str], folder: Path) -> None:
    signal_all(process, folder, signal.SIGKILL)


def terminate_all(process: subprocess.Popen[str], folder: Path) -> None:
    """As `timeout` and schedulers do: SIGTERM to the whole process group, workers included."""
    os.killpg(process.pid, signal.SIGTERM)


def ctrl_c(process: subprocess.Popen[str], folder: Path) -> None:
    os.kill(process.pid, signal.SIGINT)


def stop_verb(process: subprocess.Popen[str], folder: Path) -> None:
    """The sweep stands still meanwhile: the verb takes seconds to start, enough for all trials."""
    signal_all(process, folder, signal.SIGSTOP)
    try:
        assert run(["stop", str(folder)], folder).returncode == 0
    finally:
        signal_all(process, folder, signal.SIGCONT)


def signal_all(process: subprocess.Popen[str], folder: Path, number: signal.Signals) -> None:
    """Signal the controller, its workers, and the workers that an earlier controller started."""
    os.killpg(process.pid, number)
    for worker in (folder / files.WORKERS_DIR).glob("*"):
        alive = Mailbox(worker).heartbeat()
        if alive is not None and start_ticks(alive.pid) == alive.start_ticks:
            with suppress(ProcessLookupError):
                os.kill(alive.pid, number)


FATES: dict[str, Callable[[subprocess.Popen[str], Path], None]] = {
    "stopped": stop_verb,
    "all terminated": terminate_all,
    "controller killed": kill_controller,
    "all killed": kill_everything,
    "Ctrl-C": ctrl_c,
}
# The exit codes of commands that end so, and of the one that finishes the sweep.
CODES = {
    "stopped": INTERRUPTED,
    "all terminated": INTERRUPTED,
    "controller killed": -signal.SIGKILL,
    "all killed": -signal.SIGKILL,
    "Ctrl-C": INTERRUPTED,
    "last": 0,
}


def wait_until(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Wait for something that a running sweep does before it ends."""
    deadline = time.monotonic() + LONGEST_S
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def written(folder: Path) -> int:
    """Steps of the sweep that are done: benchmarks and episodes."""
    lines = sum(len(files.read_lines(p)) for p in folder.glob(f"trials/*/{files.EPISODES_JSONL}"))
    return lines + len(list(folder.glob(f"trials/*/{files.VITALS_JSON}")))


def check_ends(battered: Battered) -> None:
    """Every life ended as it was made to, without a word of complaint."""
    codes = {name: life.code for name, life in battered.lives.items()}
    assert codes == {name: code for name, code in CODES.items() if name in codes}
    assert [life.err for life in battered.lives.values()] == [""] * len(codes)
