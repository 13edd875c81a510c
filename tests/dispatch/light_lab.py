"""Sweep folders with light trials, and dispatchers over real processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from light_work import PLAN, VISITS, open_light_evaluator, serve_lightly

from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch.dispatcher import Dispatcher, open_launcher
from duqsweep.control.dispatch.inline import InlineDispatcher
from duqsweep.control.dispatch.pool import SubmititDispatcher
from duqsweep.files import TRIALS_DIR, WORKERS_DIR, read_lines, trial_dir, write_json
from duqsweep.mailbox import Mailbox


class Lab:
    """A sweep's folder, and dispatchers on it one after another."""

    def __init__(self, launcher: str, folder: Path) -> None:
        self.launcher = launcher
        self.folder = folder
        self.opened: list[Dispatcher] = []
        (folder / TRIALS_DIR).mkdir(parents=True)

    def trial(
        self,
        number: int,
        mishap: str | None = None,
        episode_s: float = 0.0,
        mishaps: int = 1,
        part: str = "",
    ) -> Path:
        path = trial_dir(self.folder / part, number)
        path.mkdir(parents=True)
        write_json(path / PLAN, {"mishap": mishap, "episode_s": episode_s, "mishaps": mishaps})
        return path

    def open(self, entry: Callable[[str], None] = serve_lightly, **changes: object) -> Dispatcher:
        if self.launcher == "inline":
            return InlineDispatcher(self.folder, open_light_evaluator)
        settings = {"name": self.launcher, "jobs": 2, "idle_s": 20.0, "mem_gb": 0.5} | changes
        config = LauncherConfig(**settings)
        dispatcher = SubmititDispatcher(open_launcher(config), config, self.folder, entry)
        self.opened.append(dispatcher)
        return dispatcher

    def visits(self, number: int) -> int:
        return len(read_lines(trial_dir(self.folder, number) / VISITS))


def wait_for_ends(dispatcher: Dispatcher, n: int, seconds: float = 90.0) -> list:
    """Poll as the sweep does until n assignments have ended."""
    ended: list = []
    deadline = time.monotonic() + seconds
    while len(ended) < n:
        assert time.monotonic() < deadline, f"only {ended} ended; pending {dispatcher.pending()}"
        ended += dispatcher.poll()
        time.sleep(0.05)
    return ended


def mailboxes(lab: Lab) -> list[Mailbox]:
    return [Mailbox(path) for path in sorted((lab.folder / WORKERS_DIR).glob("*"))]


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
