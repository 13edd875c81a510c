"""The throughput benchmark: its suites are the sweep's, and its table keeps other rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import throughput

from duqsweep.checkpoint.sizes import EXPERT, VISION, linear_layers, sizes_of
from duqsweep.control.config.sweep_config import compose
from duqsweep.quant.select import select_layers
from duqsweep.result import Throughput


@pytest.mark.parametrize("suite", ["duq_mini", "libero_spatial", "libero_10"])
def test_suites_are_those_that_a_sweep_composes(suite: str) -> None:
    composed = compose(["name=step", "enqueue=[reference]", f"suite={suite}"]).base.suite
    assert throughput.suite_spec(suite, "auto", None) == composed


def test_the_mixed_form_has_eight_bits_in_the_llm_and_four_in_the_expert() -> None:
    bits = select_layers(throughput.quant_spec("mixed"), linear_layers(sizes_of("pi05_libero")))
    found = {(EXPERT in name, weight) for name, (weight, _) in bits.items()}
    assert found == {(True, 4), (False, 8)}
    assert not any(VISION in name for name in bits)


def test_a_new_row_replaces_the_old_one_of_the_same_case(tmp_path: Path) -> None:
    def row(simulators: int, steps_per_s: float) -> dict[str, object]:
        case = dict.fromkeys(throughput.KEY, "x")
        return {**case, "simulators": simulators, "steps_per_s": steps_per_s}

    path = tmp_path / "throughput.json"
    throughput.save(path, [row(2, 10.0), row(1, 5.0)], {"duq_mini": {"ours": 3.0}})
    throughput.save(path, [row(2, 12.0)], {})
    found = json.loads(path.read_text())
    assert [(r["simulators"], r["steps_per_s"]) for r in found["rows"]] == [(1, 5.0), (2, 12.0)]
    assert found["step_cpu_ms"] == {"duq_mini": {"ours": 3.0}}


def test_what_was_counted_is_divided_by_its_time() -> None:
    begun = Throughput(4, wall_s=10.0, episodes=3, steps=100, calls=20, policy_s=1.0, sim_s=20.0)
    now = Throughput(4, wall_s=20.0, episodes=8, steps=300, calls=60, policy_s=3.0, sim_s=55.0)
    counted = now.since(begun)
    assert (counted.episodes_per_min, counted.policy_busy) == (30.0, 0.2)
    assert (counted.simulators_busy, counted.steps) == (3.5, 200)
