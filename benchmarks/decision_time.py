"""How long sampler `kghv` takes to decide, by the number of trials: 23 parameters, 8 workers.

Trials join one after the other, so that one of the decisions fits the hyperparameters again.
`believe` is what follows each batch of episodes: the posterior and everybody's place on the front.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median
from time import process_time

import numpy as np
from search.simulation import FLOOR, SIMULATOR_S, START_S, random_point
from search.truths import DEVELOPMENT, Truth

from duqsweep.control.front.measures import EPISODE_TIME_S
from duqsweep.control.kghv import chooser as engine
from duqsweep.control.kghv.chooser import Chooser, Prices, Region
from duqsweep.control.kghv.known import Known
from duqsweep.control.kghv.question import Able

TRIALS = (30, 100, 300)
MORE = 1.12  # times as many trials at the end, so that a fit is among the decisions
WORKERS = 8


def main() -> None:
    """Time decisions, in milliseconds of the processor: others may use it too."""
    engine.FRONT_SHARE = 0.0  # so that every decision compares all trials and new points
    truth = DEVELOPMENT["dev_easy"]()
    prices = Prices(lambda costs: np.exp(costs[:, 0]) + SIMULATOR_S, START_S)
    region = Region((truth.corner,), FLOOR)
    print(
        "| trials | decision: median | with a fit: longest | believe: median |\n|---|---|---|---|"
    )
    for count in TRIALS:
        chooser = Chooser(
            truth.parameters,
            lambda choose: {p.key: choose(p) for p in truth.parameters},
            costs=[EPISODE_TIME_S.noise],
            batch=20,
        )

        def decide(known: list[Known], chooser: Chooser = chooser) -> None:
            rng = random.Random(len(known))
            chooser.choose(known, region, prices, lambda _: False, rng)

        def believe(known: list[Known], chooser: Chooser = chooser) -> None:
            posterior = chooser.posterior(known)
            able = Able.of(known, posterior)
            posterior.front_chances(able.places, able.costs, np.array([0.02]))

        decide(_trials(truth, count))  # the hyperparameters are those of the sweep so far
        several = [_trials(truth, n) for n in range(count + 1, round(MORE * count) + 1)]
        decisions = [_ms(decide, known) for known in several]
        beliefs = [_ms(believe, known) for known in several]
        print(
            f"| {count} | {median(decisions):.0f} | {max(decisions):.0f} | {median(beliefs):.0f} |"
        )


def _ms(work: Callable[[list[Known]], None], known: list[Known]) -> float:
    began = process_time()
    work(known)
    return 1000 * (process_time() - began)


def _trials(truth: Truth, count: int) -> list[Known]:
    rng = random.Random(0)
    points = [random_point(truth, rng) for _ in range(count)]
    rates, times = truth.rate(points), np.log(truth.time_s(points))
    return [
        Known(
            i,
            point,
            round(20 * rates[i]),
            20,
            (float(times[i]),),
            pending=20 * (i < WORKERS),
            blocks=((round(20 * rates[i]), 20),),
        )
        for i, point in enumerate(points)
    ]


if __name__ == "__main__":
    main()
