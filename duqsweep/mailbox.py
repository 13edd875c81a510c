"""The folder through which a dispatcher and one worker talk: assignments in, outcomes out.

    worker.json           the worker's configuration, written before its job starts
    job.json              the job's id, once the launcher has given one
    alive.json            who the worker is and what it does; written by the worker, and touched
                          every BEAT_S seconds while it runs
    inbox/000001.json     an assignment, put by the dispatcher
    claimed/000001.json   the same file, moved by the worker when it starts on it
    returned/000001.json  the same file, moved by the dispatcher out of the reach of a gone worker
    done/000001.json      the outcome, written by the worker
    acknowledged/…        marked by the dispatcher when the sweep knows the outcome
    ended.json            why the worker left; it claims nothing after having written this
    stop                  asks the worker to leave at once

Every hand-over is one rename, so exactly one side gets an assignment, whenever either is killed.

A folder can be copied, moved or planted. So it names the place where it was made, and the name of
its job follows from that place and a random secret: another folder cannot name this one's job.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from duqsweep.assignment import Assignment, Failure
from duqsweep.codec import decode, encode
from duqsweep.errors import DuqsweepError
from duqsweep.files import STOP, read_json, read_record, write_json

T = TypeVar("T")

WORKER_JSON = "worker.json"
JOB_JSON = "job.json"
ALIVE_JSON = "alive.json"
ENDED_JSON = "ended.json"
BOXES = ("inbox", "claimed", "returned", "done", "acknowledged")
BEAT_S = 2.0  # between two touches of alive.json

log = logging.getLogger(__name__)

LeaveReason = Literal[
    "idle", "time", "stopped", "timeout", "preempted", "terminated", "served", "hung"
]


def mark_of(proof: str) -> str:
    """What the name of a job has of its proof (`SECRET@FOLDER`), so that no other job has it."""
    return hashlib.sha256(proof.encode("utf-8", "surrogateescape")).hexdigest()[:12]


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration of a worker; it never changes."""

    id: str  # its folder's name
    folder: str  # absolute path of its folder when it was made
    secret: str  # random
    idle_s: float  # without an assignment for so long, it leaves
    timeout_min: float  # the launcher ends the job after that
    signal_s: float  # before the end, the launcher sends SIGUSR2
    hang_min: float  # an evaluation without any progress for so long is ended
    reuse: bool  # false: one assignment, then leave
    created_at: float  # Unix time
    host: str  # that submitted it
    machine: str  # that submitted it; see `processes.machine_id`
    simulators: int = 1  # at once

    @property
    def proof(self) -> str:
        """What the environment of every process of this worker holds, and of no other."""
        return f"{self.secret}@{self.folder}"

    @property
    def job_name(self) -> str:
        """The name of its job, unlike any other job's."""
        folder = Path(self.folder)
        return f"duqsweep-{folder.parent.parent.name}-{folder.name}-{mark_of(self.proof)}"


@dataclass(frozen=True)
class Job:
    """What the launcher answered."""

    job_id: str
    submitted_at: float  # Unix time


@dataclass(frozen=True)
class Heartbeat:
    """Which process the worker is, and what it works on."""

    pid: int
    start_ticks: int  # with the pid, names a process once and for all (until a reboot)
    host: str
    machine: str  # in which the pid means this process; see `processes.machine_id`
    node: str | None  # SLURM's name of the machine
    job_id: str | None  # SLURM's
    started_at: float  # Unix time
    assignment: Assignment | None  # what it works on


@dataclass(frozen=True)
class WorkerExit:
    """Why a worker left."""

    reason: LeaveReason
    finished: int  # number of the last assignment with an outcome; 0: none


@dataclass(frozen=True)
class Outcome:
    """How an assignment ended: an outcome of result.json, or the reason why there is none."""

    assignment: Assignment
    outcome: str | None
    failure: Failure | None
    # SHA-256 of the trial's files as the worker left them. Other machines may see them only
    # seconds later.
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mailbox:
    """One worker's folder, `workers/<id>`."""

    folder: Path
    _config: list[WorkerConfig] = field(default_factory=list, compare=False, repr=False)
    _damaged: set[Path] = field(default_factory=set, compare=False, repr=False)  # as was said

    @property
    def sweep_dir(self) -> Path:
        """The sweep that the worker serves."""
        return self.folder.parent.parent

    def create(self, worker_config: WorkerConfig) -> None:
        """Make the folder, which nobody else may write; it must not exist."""
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.mkdir(mode=0o700)
        for box in BOXES:
            (self.folder / box).mkdir(mode=0o700)
        write_json(self.folder / WORKER_JSON, encode(worker_config))

    def worker_config(self) -> WorkerConfig | None:
        """None when whoever made the folder was killed before it was whole.

        Once read it is kept, so that damage to the file does not matter to who knows it.
        """
        path = self.folder / WORKER_JSON
        if not self._config and path.exists():
            self._config.append(decode(WorkerConfig, read_json(path)))
        return self._config[0] if self._config else None

    def own_config(self) -> WorkerConfig | None:
        """The configuration, if it names this very folder and this user owns it; else None.

        Raises:
            DuqsweepError: worker.json is damaged or of another version.
        """
        if self.folder.is_symlink() or self.folder.stat().st_uid != os.geteuid():
            return None
        config = self.worker_config()
        return config if config is not None and config.folder == str(self.folder) else None

    def set_job(self, job: Job) -> None:
        """Keep the job's id."""
        write_json(self.folder / JOB_JSON, encode(job))

    def job(self) -> Job | None:
        """None when no launcher has answered yet, or its answer was lost with the dispatcher."""
        return self._known(Job, self.folder / JOB_JSON)

    def put(self, number: int, assignment: Assignment) -> None:
        """Offer an assignment; `number` is one more than the last."""
        write_json(self._path("inbox", number), encode(assignment))

    def claim(self) -> tuple[int, Assignment] | None:
        """Take the oldest offered assignment (the worker's side)."""
        for number in self._numbers("inbox"):
            if self._move(number, "inbox", "claimed"):
                return number, self._assignment("claimed", number)
        return None

    def take_back(self, number: int) -> bool:
        """Withdraw an offer; false when the worker has claimed it (the dispatcher's side)."""
        return self._move(number, "inbox", "returned")

    def finish(self, number: int, outcome: Outcome) -> None:
        """Record how a claimed assignment ended."""
        write_json(self._path("done", number), encode(outcome))

    def outcome(self, number: int) -> Outcome | None:
        """How an assignment ended; None before that."""
        return self._known(Outcome, self._path("done", number))

    def acknowledge(self, number: int) -> None:
        """Mark that the sweep knows how this assignment ended."""
        self._path("acknowledged", number).touch()

    def open_numbers(self) -> list[int]:
        """Offered or claimed assignments that are not acknowledged."""
        offered = {*self._numbers("inbox"), *self._numbers("claimed")}
        return sorted(offered - set(self._numbers("acknowledged")))

    def interrupted_numbers(self) -> list[int]:
        """Claimed assignments without an outcome: an earlier run of this worker was killed."""
        return sorted(
            set(self._numbers("claimed"))
            - set(self._numbers("done"))
            - set(self._numbers("acknowledged"))
        )

    def last_number(self) -> int:
        """The highest number ever offered; 0 when none was."""
        offered = [n for box in ("inbox", "claimed", "returned") for n in self._numbers(box)]
        return max(offered, default=0)

    def assignment(self, number: int) -> Assignment | None:
        """The assignment with this number, wherever it lies; None where its file is damaged."""
        for box in ("inbox", "claimed", "returned"):  # the worker may claim it just now
            if self._path(box, number).exists():
                return self._known(Assignment, self._path(box, number))
        return None

    def set_alive(self, alive: Heartbeat) -> None:
        """Say what the worker does now."""
        write_json(self.folder / ALIVE_JSON, encode(alive))

    def beat(self) -> None:
        """Show that the worker still runs."""
        os.utime(self.folder / ALIVE_JSON)

    def heartbeat(self) -> Heartbeat | None:
        """None before the worker has started."""
        return self._known(Heartbeat, self.folder / ALIVE_JSON)

    def leave(self, reason: LeaveReason, finished: int) -> None:
        """Write the worker's last file."""
        write_json(self.folder / ENDED_JSON, encode(WorkerExit(reason, finished)))

    def worker_exit(self) -> WorkerExit | None:
        """Why the worker left; None while it may still claim."""
        return self._known(WorkerExit, self.folder / ENDED_JSON)

    def ask_to_leave(self) -> None:
        """The worker leaves within a second, whatever it does."""
        (self.folder / STOP).touch()

    def asked_to_leave(self) -> bool:
        """Whether `ask_to_leave` was called."""
        return (self.folder / STOP).exists()

    def _known(self, cls: type[T], path: Path) -> T | None:
        """The record in a file; a damaged one counts as missing, which is logged once.

        It stays where it is: its writer may replace it, and a file system may show it late.
        """
        try:
            return read_record(cls, path)
        except FileNotFoundError:
            return None
        except DuqsweepError as error:
            if path not in self._damaged:
                log.warning("%s; the file counts as missing", error)
            self._damaged.add(path)
            return None

    def _path(self, box: str, number: int) -> Path:
        return self.folder / box / f"{number:06d}.json"

    def _numbers(self, box: str) -> list[int]:
        return sorted(int(path.stem) for path in (self.folder / box).glob("[0-9]*.json"))

    def _assignment(self, box: str, number: int) -> Assignment:
        return decode(Assignment, read_json(self._path(box, number)))

    def _move(self, number: int, source: str, target: str) -> bool:
        try:
            self._path(source, number).rename(self._path(target, number))
        except FileNotFoundError:
            return False  # the other side was first
        return True
