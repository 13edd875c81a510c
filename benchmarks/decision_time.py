"""How long sampler `kghv` takes to decide, by the number of trials: 23 parameters, 8 workers."""

from __future__ import annotations

import random
from statistics import median
from time import perf_counter, process_time

import numpy as np
from search.simulation import FLOOR, SIMULATOR_S, START_S, random_point
from search.truths import DEVELOPMENT, Truth

from duqsweep.control.kghv.chooser import Chooser, Known, Prices, Region

TRIALS = (30, 100, 300)
REPEATS = 7
WORKERS = 8


def main() -> None:
    """Time decisions on random trials, each with 20 episodes."""
    truth = DEVELOPMENT["dev_easy"]()
    prices = Prices(lambda costs: np.exp(costs[:, 0]) + SIMULATOR_S, START_S)
    print("| trials | decision [ms] | of the processor [ms] | with a fit [ms] |\n|---|---|---|---|")
    for count in TRIALS:
        chooser = Chooser(
            truth.parameters,
            lambda choose: {p.key: choose(p) for p in truth.parameters},
            costs=1,
            batch=20,
        )
        wall, cpu = [], []
        for repeat in range(REPEATS):
            known = _trials(truth, count + repeat)
            began, worked = perf_counter(), process_time()
            region = Region((truth.corner,), FLOOR)
            chooser.choose(known, region, prices, lambda _: False, random.Random(repeat))
            wall.append(1000 * (perf_counter() - began))
            cpu.append(1000 * (process_time() - worked))
        # The first one fits the hyperparameters, as one decision does for every tenth new trial.
        print(f"| {count} | {median(wall[1:]):.0f} | {median(cpu[1:]):.0f} | {wall[0]:.0f} |")


def _trials(truth: Truth, count: int) -> list[Known]:
    rng = random.Random(0)
    points = [random_point(truth, rng) for _ in range(count)]
    rates, times = truth.rate(points), np.log(truth.time_s(points))
    return [
        Known(i, point, round(20 * rates[i]), 20, (float(times[i]),), pending=20 * (i < WORKERS))
        for i, point in enumerate(points)
    ]


if __name__ == "__main__":
    main()
