"""A dispatcher whose worker is a stub: it plays a trial within one poll, from where its files end.

The numbers follow from the trial's settings, as those of a real policy do.
"""

from __future__ import annotations

from pathlib import Path

from synthetic_sweep import make_episodes, make_vitals

from duqsweep import files
from duqsweep.assignment import Assignment, Ended, failure
from duqsweep.control.dispatch.jobfile import note_submission
from duqsweep.errors import DuqsweepError
from duqsweep.spec import Trial
from duqsweep.worker.ledger import read_ledger
from duqsweep.worker.summary import SavedProgress, summarise

RATE = {2: 0.3, 3: 0.7, 4: 0.9, 8: 0.95}


class StubDispatcher:
    """See `Dispatcher`."""

    capacity = 2

    def __init__(self, sweep_dir: Path) -> None:
        self._dir = sweep_dir
        self._pending: list[Assignment] = []
        self.played: list[tuple[int, int]] = []  # trial, ledger position

    def submit(self, assignment: Assignment) -> None:
        note_submission(self._dir, assignment, "stub", None, 0, None)
        self._pending.append(assignment)

    def pending(self) -> list[Assignment]:
        return list(self._pending)

    def reattach(self) -> list[Assignment]:
        return []

    def poll(self) -> list[Ended]:
        ended = [Ended(one, self.evaluate(one)) for one in self._pending]
        self._pending.clear()
        return ended

    def evaluate(self, assignment: Assignment):
        folder = files.trial_dir(self._dir, assignment.trial)
        try:
            read_ledger(self._dir / files.LEDGER_JSON)
            progress = SavedProgress.read(folder)
            trial = Trial.from_json(files.read_json(folder / files.SPEC_JSON))
        except DuqsweepError as error:
            return failure("node", str(error))
        if progress.vitals is None:
            files.write_json(folder / files.VITALS_JSON, vitals_of(trial).to_json())
        for i in range(assignment.until_episode):
            if i not in progress.finished:
                self.played.append((assignment.trial, i))
                files.append_line(folder / files.EPISODES_JSONL, episode_of(trial, i).to_json())
        records = SavedProgress.read(folder).episodes
        result = summarise(records, "complete", f"played {len(records)} episodes")
        files.write_json(folder / files.RESULT_JSON, result.to_json())
        return None

    def stop(self, trial: int, reason: str) -> None:
        self._pending = [one for one in self._pending if one.trial != trial]

    def close(self, end_jobs: bool) -> int:
        return 0


def vitals_of(trial: Trial):
    bits = int(trial.params.get("quant.weight_bits.default", 16))
    return make_vitals(trial, 1.0 + 1.0 / trial.spec.policy.num_steps + 1.0 / bits)


def episode_of(trial: Trial, i: int):
    bits = int(trial.params.get("quant.weight_bits.default", 16))
    chance = int(trial.fingerprint, 16) % 1009
    return make_episodes(chance, i + 1, RATE.get(bits, 0.97))[i]
