"""Trials of `light_sweep` that cost nothing, in real workers.

Jobs import this module by name, so its folder is on PYTHONPATH in these tests.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "control"))

from stub_trials import episode_of, vitals_of

from duqsweep.files import (
    EPISODES_JSONL,
    RESULT_JSON,
    SPEC_JSON,
    STOP,
    TRIAL_LOCK,
    VITALS_JSON,
    append_line,
    read_json,
    write_json,
)
from duqsweep.result import TrialResult
from duqsweep.spec import Trial
from duqsweep.worker import pulse
from duqsweep.worker.lock import exclusive
from duqsweep.worker.serve import serve
from duqsweep.worker.summary import SavedProgress, summarise

PLAYED = "LIGHT_TRIALS_PLAYED"  # environment: a file outside of the sweep, a line per episode
EPISODE_S = 0.8


def serve_lightly(worker_dir: str) -> None:
    serve(worker_dir, lambda: evaluate)


def evaluate(folder: Path, until_episode: int) -> TrialResult:
    with exclusive(folder / TRIAL_LOCK, 5.0):
        trial = Trial.from_json(read_json(folder / SPEC_JSON))
        progress = SavedProgress.read(folder)
        if progress.vitals is None:
            write_json(folder / VITALS_JSON, vitals_of(trial).to_json())
        outcome = "complete"
        for i in set(range(until_episode)) - set(progress.finished):
            if (folder / STOP).exists():
                outcome = "stopped"
                break
            time.sleep(EPISODE_S)
            pulse.advance()
            append_line(folder / EPISODES_JSONL, episode_of(trial, i).to_json())
            append_line(Path(os.environ[PLAYED]), [trial.fingerprint, i])
        records = SavedProgress.read(folder).episodes
        result = summarise(records, outcome, f"played {len(records)} episodes")
        write_json(folder / RESULT_JSON, result.to_json())
        return result
