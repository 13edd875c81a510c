"""A small real sweep with sampler `kghv`: real simulator, real policy, trials that are resumed."""

from __future__ import annotations

import pytest
from commands import SMALL, Finished, run

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


@pytest.fixture(scope="module")
def shared(tmp_path_factory, checkpoint) -> Finished:
    cwd = tmp_path_factory.mktemp("kghv")
    words = (*SMALL, *KGHV, f"policy.checkpoint={checkpoint}")
    return Finished(cwd / "sweeps" / "small", words, run(words, cwd))


def test_it_spends_the_budget_on_trials_that_pause_and_resume(shared):
    assert shared.process.returncode == 0, shared.process.stderr
    views = read_trials(shared.folder)
    assert sum(len(view.episodes) for view in views) == 6
    assert max(len(view.episodes) for view in views) > 1
    assert {view.status.state for view in views if view.status} == {"paused"}
    assert all(view.vitals for view in views)
