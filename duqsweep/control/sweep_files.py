"""The files of a sweep as the loop reads and writes them: its trials and its front."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from duqsweep import files
from duqsweep.control.front.content import FrontBuilder
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.records import Front, FrontText
from duqsweep.control.front.stored import SourcesFile
from duqsweep.control.front.verdict import MARGIN
from duqsweep.control.trial_status import TrialStatus, write_status
from duqsweep.control.trials.quarantine import DAMAGE, mend_trial
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.result import Outcome
from duqsweep.worker.summary import summarise

log = logging.getLogger(__name__)

FRONT_INTERVAL_S = 1.0  # between two computations of the front, at least
FRONT_SHARE = 20  # and at least so many times as long as the last one took: 5 % of a core


class TrialFiles:
    """See `protocols.Trials`."""

    def __init__(
        self, sweep_dir: Path, reader: TrialReader, say: Callable[[str], None] = log.warning
    ) -> None:
        """The trials of the sweep in `sweep_dir`.

        Args:
            sweep_dir: Its folder.
            reader: Reads them.
            say: Takes a line for people for each file that is damaged.
        """
        self._dir = sweep_dir
        self._reader = reader
        self._say = say
        self._last: dict[int, TrialView] = {}

    def read(self) -> list[TrialView]:
        """See `protocols.Trials`."""
        views = self._reader.read()
        self._last = {view.number: view for view in views}
        return views

    def view(self, number: int) -> TrialView:
        """See `protocols.Trials`; what is damaged is moved aside first."""
        known = self._last.get(number)
        try:
            view = self._reader.view(number)
        except DAMAGE as error:
            said = mend_trial(self._dir, number, None if known is None else known.trial)
            if not said and known is not None:  # a worker still writes
                log.info("trial %d cannot be read now: %s", number, error)
                return known
            for line in said:
                self._say(line)
            view = self._reader.view(number)
        self._last[number] = view
        return view

    def set_status(self, number: int, status: TrialStatus) -> TrialView:
        """See `protocols.Trials`."""
        write_status(files.trial_dir(self._dir, number), status)
        return self.view(number)

    def write_result(
        self, number: int, outcome: Outcome, reason: str, error: tuple[str, str] | None = None
    ) -> TrialView:
        """See `protocols.Trials`."""
        view = self.view(number)
        result = summarise(view.episodes, outcome, reason, error)
        files.write_json(files.trial_dir(self._dir, number) / files.RESULT_JSON, result.to_json())
        return self.view(number)


class FrontFiles:
    """See `protocols.FrontKeeper`."""

    def __init__(
        self,
        sweep_dir: Path,
        objectives: Sequence[Objective],
        clock: Callable[[], float] = time.monotonic,
        margin: float = MARGIN,
    ) -> None:
        """The front of the sweep in `sweep_dir`.

        Args:
            sweep_dir: Its folder.
            objectives: What it trades, most important first.
            clock: Seconds that only grow.
            margin: Loss of success rate that the verdict tolerates.
        """
        self._dir = sweep_dir
        self._builder = FrontBuilder(sweep_dir, objectives, margin)
        self._text = FrontText()
        self._sources = SourcesFile(sweep_dir, objectives, margin)
        self._written: str | None = None
        self._clock = clock
        self._due_s = -float("inf")  # by the clock: no computation before

    def measured(self, view: TrialView) -> None:
        """See `protocols.FrontKeeper`."""
        ensure_reference(self._dir, [view])

    def update(self, views: Sequence[TrialView], final: bool = False) -> Front | None:
        """See `protocols.FrontKeeper`."""
        begun_s = self._clock()
        if begun_s < self._due_s and not final:
            return None
        front = self._builder.build(views)
        path, text = self._dir / files.FRONT_JSON, self._text.of(front)
        if text != self._written and not _holds(path, text):
            files.write_text(path, text)
        self._written = text
        self._sources.write(text, views)
        ended_s = self._clock()
        self._due_s = ended_s + max(FRONT_INTERVAL_S, FRONT_SHARE * (ended_s - begun_s))
        return front


def _holds(path: Path, text: str) -> bool:
    """Whether a file holds this text."""
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False
