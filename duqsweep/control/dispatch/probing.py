"""Sends a probe through a launcher, as a worker's job, and reports what it finds on its node."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import duqsweep
from duqsweep.codec import encode
from duqsweep.control.dispatch.batch import asks_for_gpus
from duqsweep.control.dispatch.devices import cuda_devices
from duqsweep.control.dispatch.dispatcher import open_launcher
from duqsweep.control.dispatch.jobfile import state_text
from duqsweep.control.dispatch.launch import Launcher, SubmissionError, check_path
from duqsweep.control.dispatch.member import VISIBLE_S, new_mailbox
from duqsweep.files import json_text, read_json, read_records, write_text
from duqsweep.mailbox import Job, Mailbox
from duqsweep.worker.probe import (
    DOING_TXT,
    FINDINGS_JSONL,
    LAST,
    PINGS,
    REQUEST_JSON,
    Finding,
    ProbeRequest,
    ping_file,
    pong_file,
    probe,
)

if TYPE_CHECKING:
    from duqsweep.control.config.sweep_config import SweepConfig

JOB_MIN = 15  # minutes that the job asks for: little, so that it starts soon
TICK_S = 0.1
LATE_S = 10.0  # what an ended job has written may appear so much later
ABSENT_S = 30.0  # a job that was submitted may be listed so much later
SLOW_S = 30.0  # an assignment that takes longer to its worker costs more than many an episode
CLOCK_S = 60.0


def probe_findings(
    config: SweepConfig,
    folder: Path,
    addresses: tuple[str, ...],
    wait_s: float,
    say: Callable[[str], None],
) -> Generator[Finding, None, None]:
    """Run one probe through the sweep's launcher; closing the iterator ends its job.

    Args:
        config: The sweep.
        folder: An empty one, where the sweep's could be; an absolute path.
        addresses: URLs that a controller must reach.
        wait_s: For all answers.
        say: Takes a line whenever the job's state changes.

    Raises:
        ConfigError: No job can be given such a folder.
    """
    check_path(folder)
    minutes = min(config.launcher.timeout_min, JOB_MIN)
    settings = replace(config.launcher, timeout_min=minutes)
    launcher = open_launcher(settings)
    request = ProbeRequest(
        version=duqsweep.__version__,
        policy=config.base.policy,
        suite=config.base.suite,
        has_gpu=config.base.runtime.device == "cuda"
        or (asks_for_gpus(settings) if launcher.name == "slurm" else bool(cuda_devices())),
        submits=launcher.name == "slurm",
        addresses=addresses,
        wait_s=wait_s,
    )
    mailbox = new_mailbox(settings, folder, f"probe-{secrets.token_hex(3)}", simulators=1)
    # An address may hold a password.
    write_text(mailbox.folder / REQUEST_JSON, json_text(encode(request)), private=True)
    try:
        yield from _Probing(launcher, mailbox, wait_s, say).run()
    finally:
        mailbox.ask_to_leave()
        launcher.cancel([mailbox])


class _Probing:
    def __init__(
        self, launcher: Launcher, mailbox: Mailbox, wait_s: float, say: Callable[[str], None]
    ) -> None:
        self.launcher = launcher
        self.mailbox = mailbox
        self.wait_s = wait_s
        self.say = say
        self.begun = time.monotonic()
        self.state = "submitted"
        self.last_words = ""  # the launcher's, of the job's end
        self.gone_since: float | None = None  # monotonic
        self.next_look = 0.0
        self.reported: list[Finding] = []

    def run(self) -> Iterator[Finding]:
        try:
            job_id = self.launcher.start(self.mailbox, probe)
        except SubmissionError as error:
            yield Finding("job", False, str(error))
            return
        self.mailbox.set_job(Job(job_id, time.time()))
        self.say(f"job {job_id} is submitted")
        if not (yield from self._wait("job", lambda: self.mailbox.heartbeat() is not None)):
            return
        alive = self.mailbox.heartbeat()
        assert alive is not None
        waited_s = time.monotonic() - self.begun
        where = alive.node or alive.host
        text = f"{self.launcher.name} job {job_id} runs on {where}, {waited_s:.1f} s after asking"
        yield Finding("job", True, text)
        if not (yield from self._ping()):
            return
        while not self.reported or self.reported[-1].name != LAST:
            if not (yield from self._wait("job", lambda: len(self._found()) > len(self.reported))):
                return
            new = self._found()[len(self.reported) :]
            self.reported += new
            yield from new

    def _ping(self) -> Generator[Finding, None, bool]:
        """How long a file takes to the node and its answer back, and how far its clock is off."""
        folder, trips = self.mailbox.folder, []
        for number in range(1, PINGS + 1):
            sent, start = time.time(), time.monotonic()
            write_text(ping_file(folder, number), "{}")
            pong = pong_file(folder, number)
            if not (yield from self._wait("shared folder", partial(_is_listed, pong))):
                return False
            trip_s = time.monotonic() - start
            trips.append((trip_s, read_json(pong)["time"] - sent - trip_s / 2))
        slowest_s = max(trip_s for trip_s, _ in trips)
        root = self.mailbox.sweep_dir.parent
        there = f"{root} is written from both sides; there and back takes {slowest_s:.1f} s"
        if slowest_s > SLOW_S:
            there += (
                f", and beyond {VISIBLE_S:g} s results count as lost: set dir=FOLDER on a file "
                "system that nodes see at once, or ask for a mount with a shorter actimeo"
            )
        yield Finding("shared folder", slowest_s <= SLOW_S, there)
        trip_s, ahead_s = min(trips)
        off = f"the node is {ahead_s:+.1f} s from this machine, give or take {trip_s / 2:.1f} s"
        is_right = abs(ahead_s) - trip_s / 2 <= CLOCK_S
        hint = "" if is_right else "; a sweep does not mind, but munge and TLS refuse at minutes"
        yield Finding("clock", is_right, f"{off}{hint}", is_needed=False)
        return True

    def _found(self) -> list[Finding]:
        return read_records(Finding, self.mailbox.folder / FINDINGS_JSONL)

    def _wait(self, name: str, has_come: Callable[[], bool]) -> Generator[Finding, None, bool]:
        """Wait for what the job does; false, with a finding, when it will not come any more."""
        while not has_come():
            self._look()
            why = self._end()
            if why is not None:
                doing = self.mailbox.folder / DOING_TXT
                yield Finding(doing.read_text("utf-8") if doing.exists() else name, False, why)
                return False
            time.sleep(TICK_S)
        return True

    def _look(self) -> None:
        """Ask the launcher for the job's state, when that is due."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + self.launcher.period_s
        view = self.launcher.views([self.mailbox]).get(self.mailbox.folder)
        if view is None:
            return
        state = state_text(view.state, view.reason)
        if state != self.state:
            self.state = state
            self.say(f"the job is {self.state}")
        if view.state not in ("ended", "absent"):
            self.gone_since = None
        elif self.gone_since is None:
            self.gone_since = time.monotonic() + (ABSENT_S if view.state == "absent" else 0.0)
            self.last_words = view.message

    def _end(self) -> str | None:
        """Why nothing more will come, if so."""
        now = time.monotonic()
        if self.gone_since is not None and now - self.gone_since > LATE_S:
            words = " ".join(self.last_words.split())
            if self.mailbox.heartbeat() is not None:
                return f"this ended the job: {words}"
            return (
                f"the job ended before its first word: nodes must see {self.mailbox.sweep_dir} and "
                f"{sys.executable}, and launcher.setup takes shell lines for them: {words}"
            )
        if now - self.begun > self.wait_s:
            return (
                f"{self.state} after {self.wait_s / 60:g} minutes: ask for less or for another "
                "launcher.partition, or wait longer with --wait-min"
            )
        return None


def _is_listed(path: Path) -> bool:
    """Whether a file is there; a network file system may remember that its name was missing."""
    return path in path.parent.iterdir()
