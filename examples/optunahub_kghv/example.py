"""The sampler in Optuna's own loop: 30 batches of 20 simulated episodes, then the front."""

from __future__ import annotations

import random

import optuna

from duqsweep.control.kghv.optuna_sampler import KghvSampler

BATCH = 20


def rate(bits: int, steps: int) -> float:
    """What nobody knows: how often the policy succeeds."""
    return {2: 0.2, 3: 0.7, 4: 0.9, 8: 0.95}[bits] - 0.25 * (steps < 3)


def run(batches: int = 30, seed: int = 0) -> dict[tuple[int, int], list[float]]:
    """Search; returns the points tried: (bits, steps) → successes, episodes, time in s."""
    sampler = KghvSampler(BATCH, n_startup_trials=6, seed=seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        bits = trial.suggest_categorical("bits", [2, 3, 4, 8])
        steps = trial.suggest_int("steps", 1, 10)
        first = sampler.played(trial)  # this point's episodes so far
        episodes = [random.Random(f"{bits} {steps} {first + i}") for i in range(BATCH)]
        successes = sum(episode.random() < rate(bits, steps) for episode in episodes)
        trial.set_user_attr("episodes", BATCH)
        trial.set_user_attr("successes", successes)
        return successes / BATCH, 0.5 + 0.1 * steps + 0.02 * bits

    study.optimize(objective, n_trials=batches)
    points: dict[tuple[int, int], list[float]] = {}
    for trial in study.trials:
        key = trial.params["bits"], trial.params["steps"]
        row = points.setdefault(key, [0, 0, trial.values[1]])
        row[0] += trial.user_attrs["successes"]
        row[1] += trial.user_attrs["episodes"]
    return points


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for (bits, steps), (successes, episodes, time_s) in sorted(run().items()):
        print(f"{bits} bits, {steps} steps: {successes} of {episodes}, {time_s:.2f} s")
