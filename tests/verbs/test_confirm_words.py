"""What `confirm` says of trials that it could not finish."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_folder import write_walk

from duqsweep import exit_codes
from duqsweep.verbs.confirm import _exit_code


@pytest.mark.parametrize(
    ("outcomes", "code", "words"),
    [
        ({1: ("complete", 6)}, exit_codes.OK, []),
        ({1: ("complete", 6), 2: ("stopped", 4)}, exit_codes.INCOMPLETE, ["trial 2 played 4 of 6"]),
        (
            {1: (None, 4)},
            exit_codes.INCOMPLETE,
            ["trial 1 played 4 of 6", "the same command resumes"],
        ),
        ({1: ("failed", 2)}, exit_codes.FAILED_TRIALS, ["trial 1 played 2 of 6 episodes: boom"]),
        ({1: (None, 4), 2: ("failed", 2)}, exit_codes.INCOMPLETE, ["trial 1", "trial 2"]),
    ],
)
def test_a_trial_that_did_not_walk_all_its_episodes_is_named(
    outcomes, code, words, tmp_path: Path, capsys
) -> None:
    for number, (outcome, episodes) in outcomes.items():
        write_walk(tmp_path, number, outcome, episodes)
    assert _exit_code(tmp_path, sorted(outcomes), 6) == code
    err = capsys.readouterr().err
    assert all(word in err for word in words), err
