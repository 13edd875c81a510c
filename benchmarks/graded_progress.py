"""Would graded progress save episodes? What partly reached goals say about a success rate.

An episode has a latent score, normal around the policy's skill; it succeeds above 0. With two goal
predicates, a failure still reaches one of them above a lower level; with a distance, a failure
shows its score. The success rate is estimated by maximum likelihood from successes alone and from
what else is seen, by simulation; the share of episodes that this saves is 1 - the ratio of the
squared errors. It is an upper limit: the levels are known here, and progress depends on the same
score. The bias is that of the rate where the level is another one than assumed, as it is when
quantization harms the last step of a task more than the first. Also counts the goal predicates of
LIBERO's tasks: with one of them, progress is success.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

from duqsweep.files import write_json

Floats = NDArray[np.float64]

OUT = Path(__file__).parent / "results" / "graded_progress.json"
RATES = (0.98, 0.95, 0.9, 0.8, 0.7)
EPISODES, RUNS = 60, 4000
PARTLY = 0.5  # share of the failures of a policy with `RATE` that reach the first predicate
RATE = 0.9
OFF = 0.3  # of the level, in standard deviations of the score
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
GRID = np.linspace(-1.0, 3.5, 1801)  # of the skill


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    found = {
        "episodes_saved": {str(rate): saved(rate, options.runs) for rate in RATES},
        "tasks_by_goal_predicates": {suite: predicates(suite) for suite in SUITES},
    }
    write_json(options.out, found)
    print(json.dumps(found, indent=2))


def saved(rate: float, runs: int, seed: int = 0) -> dict[str, float]:
    """Share of episodes that each kind of progress saves at a true success rate, and biases."""
    rng = np.random.default_rng([seed, round(1000 * rate)])
    scores = ndtri(rate) + rng.standard_normal((runs, EPISODES))
    level = _level()
    plain = _errors(rate, lambda skill: _binary(scores, skill))
    two = _errors(rate, lambda skill: _ordinal(scores, skill, level, level))
    distance = _errors(rate, lambda skill: _censored(scores, skill))
    off = [_errors(rate, lambda s, o=o: _ordinal(scores, s, level, level + o)) for o in (-OFF, OFF)]
    wrong = max(abs(float(errors.mean())) for errors in off)
    return {
        "two_predicates": round(1 - float((two**2).mean() / (plain**2).mean()), 3),
        "distance": round(1 - float((distance**2).mean() / (plain**2).mean()), 3),
        "bias_where_the_level_is_wrong": round(wrong, 4),
        "bias_of_successes_alone": round(abs(float(plain.mean())), 4),
    }


def _level() -> float:
    """How far below success the first predicate lies."""
    return float(ndtri(1 - (1 - RATE) * (1 - PARTLY)) - ndtri(RATE))


def _errors(rate: float, log_likelihood: Callable[[Floats], Floats]) -> Floats:
    """Of the success rate at the most likely skill, one per run."""
    best = GRID[log_likelihood(GRID).argmax(axis=1)]
    found: Floats = ndtr(best) - rate
    return found


def _binary(scores: Floats, skill: Floats) -> Floats:
    won = (scores > 0).sum(axis=1)[:, None]
    found: Floats = won * log_ndtr(skill) + (EPISODES - won) * log_ndtr(-skill)
    return found


def _ordinal(scores: Floats, skill: Floats, assumed: float, true: float) -> Floats:
    won = (scores > 0).sum(axis=1)[:, None]
    nothing = (scores <= -true).sum(axis=1)[:, None]
    between = np.log(ndtr(skill + assumed) - ndtr(skill))
    found: Floats = (
        won * log_ndtr(skill)
        + nothing * log_ndtr(-skill - assumed)
        + (EPISODES - won - nothing) * between
    )
    return found


def _censored(scores: Floats, skill: Floats) -> Floats:
    won = (scores > 0).sum(axis=1)[:, None]
    failed = np.minimum(scores, 0.0)
    total, squares = failed.sum(axis=1)[:, None], np.square(failed).sum(axis=1)[:, None]
    losses = squares - 2 * skill * total + (EPISODES - won) * skill**2
    found: Floats = won * log_ndtr(skill) - 0.5 * losses
    return found


def predicates(suite: str) -> dict[str, int]:
    """How many tasks of a suite have so many goal predicates; empty where LIBERO is missing."""
    package = importlib.util.find_spec("libero")
    if package is None or not package.submodule_search_locations:
        return {}
    folder = Path(package.submodule_search_locations[0]) / "libero" / "bddl_files" / suite
    counts = Counter(len(_goals(path.read_text())) for path in folder.glob("*.bddl"))
    return {str(count): tasks for count, tasks in sorted(counts.items())}


def _goals(text: str) -> list[str]:
    """The predicates of a task's goal."""
    goal = text[text.index("(:goal") :]
    return [word for word in re.findall(r"\((\w+) ", goal) if word.lower() != "and"]


if __name__ == "__main__":
    main()
