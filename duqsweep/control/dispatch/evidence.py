"""Evidence that a worker is alive, and when its job counts as dead.

A scheduler's word alone ends nothing: its answers can lack jobs, a lost node's job can still run,
and a host can change its name. A job is dead when its end was seen (the process is gone), or when
the scheduler says so and nothing of the worker has changed for a time: a worker touches its
alive.json every BEAT_S seconds and writes a line per episode, and whoever evaluates a trial holds
the lock of its folder. Times are of this process's own clock; the clocks of two machines differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from duqsweep.control.dispatch.launch import JobView
from duqsweep.files import EPISODES_JSONL, TRIAL_LOCK
from duqsweep.locking import is_locked
from duqsweep.mailbox import ALIVE_JSON, BEAT_S, Mailbox

QUIET_S = 3 * BEAT_S  # without a sign of life after the launcher has said that the job ended
ABSENT_S = 60.0  # the same when the launcher only does not list the job
LOOKS = 2  # in a row; a node failure can show for seconds although the job continues
HELD_S = 60.0  # after which the trial of a held job is given to another worker


class Evidence:
    """What is known of one worker's job."""

    def __init__(self, mailbox: Mailbox, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has been seen yet."""
        self._mailbox = mailbox
        self._clock = clock
        self._written: dict[Path, tuple[int, int] | None] = {}  # as last seen
        self._changed_at = self._same_since = clock()
        self._looks = 0
        self.view: JobView | None = None

    def note(self, view: JobView) -> None:
        """Keep the launcher's latest word."""
        if self.view is None or view.state != self.view.state:
            self._same_since, self._looks = self._clock(), 0
        self.view = view
        self._looks += 1
        if view.state in ("queued", "held", "suspended"):
            self._changed_at = self._clock()  # such a job cannot show anything

    def quiet_s(self, trial_dir: Path | None) -> float:
        """Seconds since anything of the worker, or of the trial that it evaluates, changed."""
        paths = [self._mailbox.folder / ALIVE_JSON]
        if trial_dir is not None:
            paths.append(trial_dir / EPISODES_JSONL)
        for path in paths:
            now = _state_of(path)
            if self._written.setdefault(path, now) != now:
                self._written[path], self._changed_at = now, self._clock()
        return self._clock() - self._changed_at

    def is_dead(self, trial_dir: Path | None, hang_s: float) -> bool:
        """Whether the launcher says that the job has ended, and nothing speaks against it.

        Args:
            trial_dir: Of the trial that the worker evaluates.
            hang_s: After so long without a sign of life, a held lock is none.
        """
        view = self.view
        quiet_s = self.quiet_s(trial_dir)
        if view is None or view.state not in ("ended", "absent"):
            return False
        if view.is_proven:
            return True
        needed_s = QUIET_S if view.state == "ended" else ABSENT_S
        said_s = self._clock() - self._same_since
        if self._looks < LOOKS or quiet_s < needed_s:
            return False
        if view.state == "absent" and said_s < ABSENT_S:
            return False
        is_held = trial_dir is not None and is_locked(trial_dir / TRIAL_LOCK)
        return not is_held or quiet_s > hang_s

    def is_hung(self, trial_dir: Path | None, hang_s: float) -> bool:
        """Whether the job runs and has shown nothing for `hang_s` seconds.

        A little longer than that: the worker itself, which knows more, ends what hangs.
        """
        runs = self.view is not None and self.view.state == "running"
        return self.quiet_s(trial_dir) > hang_s + QUIET_S and runs

    def is_held(self) -> bool:
        """Whether the job has waited for a person for so long that others should have its work."""
        is_held = self.view is not None and self.view.state == "held"
        return is_held and self._clock() - self._same_since > HELD_S

    def absent_s(self) -> float:
        """For how long the launcher, when it answers, has not listed the job; 0 if it does."""
        is_absent = self.view is not None and self.view.state == "absent"
        return self._clock() - self._same_since if is_absent else 0.0


def _state_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
