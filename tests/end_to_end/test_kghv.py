"""A small real sweep with sampler `kghv`: real simulator, real policy, trials that are resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Finished, Here, with_cache

from duqsweep.control.trials.reader import read_trials

pytestmark = pytest.mark.slow

KGHV = (
    "sampler=kghv",
    "sampler.startup_trials=2",
    "sampler.batch=1",
    "budget.trials=3",
    "budget.episodes_per_trial=2",
    "launcher=inline",
)


def test_it_spends_the_budget_on_trials_that_pause_and_resume(
    finished: Finished, tmp_path: Path, here: Here
) -> None:
    folder = with_cache(tmp_path / "sweeps" / "small", finished)
    done = here((*finished.words, *KGHV), tmp_path)
    assert done.returncode == 0, done.stderr
    views = read_trials(folder)
    assert sum(len(view.episodes) for view in views) == 6
    assert max(len(view.episodes) for view in views) > 1
    assert {view.status.state for view in views if view.status} == {"paused"}
    assert all(view.vitals for view in views)
