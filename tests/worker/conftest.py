"""A real policy of random weights, and what a trial of it is."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from shallow_policy import SIZES
from worker_parts import INSTRUCTION

from duqsweep.envs.mini.suite import TASKS
from duqsweep.policy.load import save_random
from duqsweep.spec import PolicySpec, QuantSpec, RuntimeSpec, SuiteSpec, TrialSpec
from duqsweep.worker.timing import StoppingRule, alternate


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy that knows the words of every instruction of the suite."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_random(folder, [INSTRUCTION, *(task.instruction for task in TASKS)], SIZES)
    return folder


@pytest.fixture
def suite() -> SuiteSpec:
    return SuiteSpec(
        name="duq_mini",
        tasks=2,
        init_states=50,
        image_px=64,
        max_steps=12,
        nominal_steps=12,
        settle_steps=2,
        replan_steps=5,
    )


@pytest.fixture
def trial_spec(checkpoint: Path, suite: SuiteSpec) -> TrialSpec:
    return TrialSpec(
        policy=PolicySpec("embedded", str(checkpoint), num_steps=2),
        quant=QuantSpec(),
        runtime=RuntimeSpec(device="cpu"),
        suite=suite,
    )


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are timed in 3 rounds and not in up to 30: how well is a matter of `test_timing.py`."""
    briefly = partial(alternate, stopping=StoppingRule(most=3))
    monkeypatch.setattr("duqsweep.worker.vitals.alternate", briefly)
