"""The files of a sweep as the loop reads and writes them: its trials and its front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from duqsweep import files
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.objectives import Objective
from duqsweep.control.front.records import Front
from duqsweep.control.trial_status import TrialStatus, write_status
from duqsweep.control.trials.reader import TrialReader, TrialView
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.result import Outcome
from duqsweep.worker.summary import summarise


class TrialFiles:
    """See `protocols.Trials`."""

    def __init__(self, sweep_dir: Path) -> None:
        """The trials of the sweep in `sweep_dir`."""
        self._dir = sweep_dir
        self._reader = TrialReader(sweep_dir)

    def read(self) -> list[TrialView]:
        """See `protocols.Trials`."""
        return self._reader.read()

    def view(self, number: int) -> TrialView:
        """See `protocols.Trials`."""
        return self._reader.view(number)

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

    def __init__(self, sweep_dir: Path, objectives: Sequence[Objective]) -> None:
        """The front of the sweep in `sweep_dir`.

        Args:
            sweep_dir: Its folder.
            objectives: What it trades, most important first.
        """
        self._dir = sweep_dir
        self._objectives = objectives

    def measured(self, view: TrialView) -> None:
        """See `protocols.FrontKeeper`."""
        ensure_reference(self._dir, [view])

    def update(self, views: Sequence[TrialView]) -> Front:
        """See `protocols.FrontKeeper`."""
        front = compute_front(self._dir, self._objectives, views)
        files.write_json(self._dir / files.FRONT_JSON, front.to_json())
        return front
