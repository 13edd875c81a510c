"""The simulated sweeps of benchmarks/search_efficiency.py: their truths and their accounts."""

from __future__ import annotations

import numpy as np
import pytest
from search.methods import METHODS
from search.simulation import BEST, Sweep
from search.truths import DEVELOPMENT, FINAL, REVERSED, reversed_table

MEMBERS = {
    "none": "",
    "attention": "attention",
    "attention_adarms": "attention adarms",
    "down": "down",
    "mlp": "gate up down",
    "everything": "attention adarms gate up down",
}


@pytest.mark.parametrize("row", MEMBERS)
def test_the_reversed_truth_has_the_measured_rates(row):
    kinds = ("attention", "adarms", "gate", "up", "down")
    point = {f"quant.{kind}": kind in MEMBERS[row].split() for kind in kinds}
    point |= {"quant.weight_bits.default": 4, "quant.act_bits": 4, "policy.num_steps": 10}
    assert 100 * reversed_table().rate([point])[0] == pytest.approx(REVERSED[row], abs=2.5)


def test_no_truth_of_the_table_was_used_for_development():
    assert len(FINAL) >= 6
    assert not set(FINAL) & set(DEVELOPMENT)


@pytest.mark.parametrize(("method", "workers"), [("random-100", 1), ("kghv", 1), ("kghv", 8)])
def test_a_sweep_spends_its_budget_and_the_same_seed_does_the_same(method, workers):
    truth = reversed_table()
    BEST[truth.name] = 1.0  # volumes are not looked at
    sweeps = [Sweep(truth, 3, workers, 240) for _ in range(2)]
    records = [sweep.run(METHODS[method](truth, 3, workers)) for sweep in sweeps]
    assert 240 <= sum(trial.episodes for trial in sweeps[0].trials) < 340
    assert records[0] == records[1]
    assert np.all(np.diff([record.gpu_h for record in records[0]]) >= 0)
