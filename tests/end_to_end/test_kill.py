"""A sweep with a real policy and simulator that is killed ends as one that never was.

Every way in which a command may end is played by `test_fates.py`, with light trials.
"""

from __future__ import annotations

import pytest
from commands import EPISODES, Finished, trial_dirs, walks, with_cache
from fates import Battered, check_ends

from duqsweep import files

pytestmark = pytest.mark.slow

TRIALS = 3  # of the four of the finished sweep


@pytest.fixture(scope="module")
def battered(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Battered:
    """Two runs that are killed, and one that finishes.

    The sweep has 15 steps (3 benchmarks, 12 episodes), and each run is bounded in steps, not in
    seconds, so that each finds work left on any machine. A run takes one or two steps before it is
    killed. The worker that outlives the first finishes its trial without it, 5 steps at most, or is
    taken up by the second. There is one, because each worker loads torch, LIBERO and the policy.
    """
    folder = tmp_path_factory.mktemp("battered") / "small"
    words = (*finished.words, f"dir={folder}", "launcher.jobs=1", f"budget.trials={TRIALS}")
    battered = Battered(with_cache(folder, finished), words)
    battered.live("controller killed")
    battered.live("all killed")
    battered.finish()
    return battered


def test_every_life_ends_as_it_was_made_to_and_the_last_one_finishes(battered: Battered) -> None:
    assert list(battered.lives) == ["controller killed", "all killed", "last"]
    check_ends(battered)


def test_the_ledger_never_changes(battered: Battered, finished: Finished) -> None:
    undisturbed = (finished.folder / files.LEDGER_JSON).read_bytes()
    assert set(battered.ledgers) == {undisturbed}


def test_no_episode_is_walked_twice_and_none_is_left_out(battered: Battered) -> None:
    for folder in trial_dirs(battered.folder):
        lines = files.read_lines(folder / files.EPISODES_JSONL)
        assert [(line["i"], line["attempt"]) for line in lines] == [(i, 0) for i in range(EPISODES)]


def test_trials_end_as_without_interruption(battered: Battered, finished: Finished) -> None:
    walked = walks(battered.folder)
    assert len(walked) == TRIALS
    assert walked.items() <= walks(finished.folder).items()


def test_the_worker_that_outlives_its_controller_is_taken_up_again(battered: Battered) -> None:
    assert "re-attached" in battered.lives["all killed"].out
