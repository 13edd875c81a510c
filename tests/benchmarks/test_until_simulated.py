"""A simulated sweep that asks for the fastest point with enough success."""

from __future__ import annotations

import random

from search.methods import KGHV
from search.simulation import Sweep, Trial
from search.truths import duq_mini

from duqsweep.control.config.until import Until
from duqsweep.control.front.beliefs import Answer
from duqsweep.control.kghv.question import Able, answer_fastest, choose_for_fastest

QUESTION = Until("fastest@success>=0.75", 0.95, 0.75, None)


class Asking(KGHV):
    """Asks its question as a sweep does, until it is answered."""

    answer: Answer | None = None

    def next(self, trials: list[Trial]):
        if self._starts:
            return super().next(trials)
        known = self._known(trials)
        posterior = self._chooser.posterior(known)
        new = self._chooser.new_points(known, random.Random(len(trials)))
        parts = (new, 0, self._is_taken)
        self.answer = answer_fastest(QUESTION, posterior, Able.of(known, posterior), known, *parts)
        if self.answer.is_known:
            return None
        if sum(trial.episodes for trial in trials) // self._batch % 2:
            return super().next(trials)
        choice = choose_for_fastest(
            QUESTION, posterior, known, new, 0, self._prices, self._batch, self._is_taken
        )
        return self._start(choice.params) if choice.params is not None else (choice.number, 20)


def asked(seed: int, episodes: int) -> tuple[Sweep, Answer]:
    """A sweep that asks, and what it knew when it was answered or had spent its episodes."""
    truth = duq_mini()
    sweep, method = Sweep(truth, seed, 1, episodes), Asking(truth, seed, 1)
    sweep.run(method, record_every=100_000)
    assert method.answer is not None
    return sweep, method.answer


def test_simulated_sweeps_end_early_with_right_answers():
    """Of twenty seeds half are answered within 3,000 episodes: the best rate is 3 points away."""
    answered = 0
    for seed in range(1, 6):
        sweep, answer = asked(seed, 1500)
        if not answer.is_known:
            continue
        answered += 1
        truth = duq_mini()
        assert sum(trial.episodes for trial in sweep.trials) < 1500
        rates = truth.rate([trial.params for trial in sweep.trials])
        times = truth.time_s([trial.params for trial in sweep.trials])
        assert rates[answer.trial] >= 0.73
        right = [t for t, r in zip(times, rates, strict=True) if r >= 0.77]
        assert times[answer.trial] <= 1.06 * min(right)
    assert answered >= 2
