"""benchmarks/real_comparison.py: what it computes from fronts, and what it says of a failed sweep.

The sweeps themselves take minutes; the command is run by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import real_comparison

REFERENCE_S = 2.0


def _row(
    sampler: str, points: Sequence[tuple[float, float, float | None]], seed: int = 0
) -> dict[str, Any]:
    """Points are (time, stated success, success on reserved states)."""
    front = [
        {"modelled_time_s": time, "stated_success": stated, "reserved_success": reserved}
        for time, stated, reserved in points
    ]
    return {"sampler": sampler, "seed": seed, "reference_time_s": REFERENCE_S, "front": front}


def test_a_front_is_worth_what_its_points_do_on_reserved_states() -> None:
    lucky = _row("tpe", [(1.0, 0.95, 0.7), (2.0, 0.95, 0.9)])
    sober = _row("kghv", [(1.0, 0.85, 0.9)])
    real_comparison._add_shares([lucky, sober])
    # Above a success of 0.5, left of 1.5 times the reference's time, in its logarithm.
    full = 0.4 * math.log(3.0)
    of_lucky = 0.2 * math.log(3.0) + 0.2 * math.log(1.5)
    assert sober["hypervolume_share"] == 1.0
    assert lucky["hypervolume_share"] == pytest.approx(of_lucky / full, abs=1e-4)
    assert lucky["stated_minus_reserved"] == pytest.approx(0.15)
    assert sober["stated_minus_reserved"] == pytest.approx(-0.05)


def test_points_that_were_not_confirmed_count_for_nothing() -> None:
    row, other = _row("tpe", [(1.0, 0.95, None)]), _row("kghv", [(1.0, 0.9, 0.8)])
    real_comparison._add_shares([row, other])
    assert row["hypervolume_share"] == 0.0
    assert row["stated_minus_reserved"] is None


def test_a_sweep_that_fails_ends_the_comparison_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"(?s)tpe-0 ended with code 2.*budget\.trials"):
        real_comparison._run_all(
            {tmp_path / "tpe-0": ["+sweep=sampler_comparison", "budget.trials=-1"]},
            math.inf,
            lambda process, folder: None,
        )
