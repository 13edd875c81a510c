"""Whether duqsweep's intervals, tests and probabilities hold what they say: a table and JSON.

Simulated, no policy is run. Success of a point is made of states of different difficulty, half of
which are reserved; see `search/checks.py`. Four questions:

- do all intervals of a `confirm` hold the true rates, in 95 % of confirmations;
- how often is a difference declared between one configuration and itself under other names, and
  how often is a point that loses exactly the margin called confirmed or refuted;
- do intervals clustered by task hold the mean rate over all tasks, where Wilson's do not;
- of points said to be on the front with 0.8 to 0.9, are 75 to 95 %.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from search.checks import (
    Calibration,
    Share,
    coverage,
    false_differences,
    front_calibration,
    looks,
    other_tasks,
)
from search.truths import FINAL

from duqsweep.control.front.verdict import MARGIN
from duqsweep.files import write_json

OUT = Path(__file__).parent / "results" / "statistical_checks.json"
POINTS, EPISODES = 5, 250  # of a confirmation
RUNS = 400
SWEEPS = ("kghv", "tpe-100")
BUDGETS = {"kghv": 800, "tpe-100": 2000}  # episodes of a sweep


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seeds", type=int, default=5, help="sweeps of each truth")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    runs = options.runs
    document: dict[str, object] = {
        "confirm": {
            "points": POINTS,
            "all_intervals_hold": {
                f"{episodes}_episodes": coverage(runs, POINTS, episodes).to_json()
                for episodes in (60, EPISODES)
            },
        },
        "one_configuration_under_many_names": {
            "trials": POINTS,
            "episodes": EPISODES,
            "no_loss": _json(false_differences(runs, POINTS, EPISODES, 0.0)),
            "loss_of_exactly_the_margin": _json(false_differences(runs, POINTS, EPISODES, MARGIN)),
            "verdict_looking_every_20_of_250_episodes": looks(
                runs // 4, POINTS, 20, EPISODES
            ).to_json(),
        },
        "mean_over_all_tasks": {
            f"spread_{spread}": _json(other_tasks(10 * runs, 10, 20, spread))
            for spread in (0.0, 0.5, 1.0)
        },
        "p_front": _p_front(options.seeds, options.jobs),
    }
    write_json(options.out, document)
    print(json.dumps(document, indent=2))


def _json(shares: dict[str, Share]) -> dict[str, object]:
    return {name: share.to_json() for name, share in shares.items()}


def _p_front(seeds: int, jobs: int) -> dict[str, object]:
    found: dict[str, object] = {"seeds": seeds, "truths": list(FINAL)}
    with ProcessPoolExecutor(jobs) as pool:
        for method in SWEEPS:
            play = partial(_calibration, method=method, seeds=range(100, 100 + seeds))
            found[method] = _joined(list(pool.map(play, FINAL))).to_json()
    return found


def _calibration(truth: str, method: str, seeds: Sequence[int]) -> Calibration:
    budget = BUDGETS[method]
    return front_calibration(FINAL[truth](), method, seeds, budget, every=budget // 4)


def _joined(parts: Sequence[Calibration]) -> Calibration:
    return Calibration(
        np.concatenate([part.stated for part in parts]),
        np.concatenate([part.true for part in parts]),
    )


if __name__ == "__main__":
    main()
