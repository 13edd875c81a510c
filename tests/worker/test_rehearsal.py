"""What is compiled while simulators load: the trial's own policy, from made-up statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shallow_policy import SIZES
from worker_parts import EXPERT_W4A8

from duqsweep.checkpoint.sizes import EXPERT, LLM, linear_layers
from duqsweep.envs.assets import instructions
from duqsweep.policy.frontend import CallInputs
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.quant.linear import QuantizedLinear
from duqsweep.quant.select import select_layers
from duqsweep.seams import Observation, Policy
from duqsweep.spec import LayerRule, QuantSpec, RuntimeSpec, TrialSpec
from duqsweep.worker import rehearsal
from duqsweep.worker.cache import ReferencePolicy, WorkerCache
from duqsweep.worker.rehearsal import Rehearsal, dark

LAYERS = linear_layers(SIZES)
BOTH = QuantSpec(rules=(LayerRule("language_model", 8, 8), *EXPERT_W4A8.rules))
Compiled = list[tuple[Pi05Policy, CallInputs, int]]


@pytest.fixture
def reference(trial_spec: TrialSpec) -> ReferencePolicy:
    return WorkerCache().reference(trial_spec.policy, "cpu")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """What is compiled, where a CPU passes for a GPU."""
    found: Compiled = []

    def compile_it(
        policy: Pi05Policy, inputs: CallInputs, depth: int, meanwhile: Callable[[], object]
    ) -> None:
        meanwhile()
        found.append((policy, inputs, depth))

    monkeypatch.setattr(rehearsal, "is_quick", lambda quant, device: True)
    monkeypatch.setattr(rehearsal, "compile_kernels", compile_it)
    return found


def asked(trial_spec: TrialSpec, quant: QuantSpec) -> TrialSpec:
    return replace(trial_spec, quant=quant, runtime=RuntimeSpec(device="cpu", compile=True))


def run(spec: TrialSpec, reference: ReferencePolicy, folder: Path) -> None:
    rehearsal = Rehearsal(spec, reference, select_layers(spec.quant, LAYERS), LAYERS, folder)
    for _ in range(2):  # only the first time, something is done
        rehearsal.play(dark(spec.suite))


@pytest.mark.parametrize(
    "quant", [EXPERT_W4A8, replace(BOTH, act_scale="static"), BOTH, QuantSpec()], ids=str
)
def test_first_and_last_layers_are_compiled_and_the_reference_is_called_and_left_as_it_was(
    trial_spec: TrialSpec,
    reference: ReferencePolicy,
    compiled: Compiled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quant: QuantSpec,
) -> None:
    called: list[Observation] = []
    kind = type(reference.policy)
    act = kind.act

    def watched(self: Policy, observation: Observation, noise: np.ndarray) -> np.ndarray:
        called.append(observation)
        return act(self, observation, noise)

    monkeypatch.setattr(kind, "act", watched)
    before = {name: value.clone() for name, value in reference.policy.module.state_dict().items()}
    spec = asked(trial_spec, quant)
    run(spec, reference, tmp_path)
    ((policy, inputs, depth),) = compiled
    ends = {0, SIZES.llm.depth - 1}
    assert depth == SIZES.llm.depth
    assert len(policy.module.language_model.layers) == len(ends)
    assert len(policy.module.expert.layers) == SIZES.expert.depth
    assert len(set(policy.module.expert.layers)) == SIZES.expert.depth
    found = [name for name, m in policy.module.named_modules() if isinstance(m, QuantizedLinear)]
    bits = select_layers(quant, LAYERS)
    in_expert = [name for name in bits if name.startswith(EXPERT)]
    in_llm = [name for name in bits if name.startswith(f"{LLM}.layers.0.")]
    assert len(found) == len(in_expert) + len(ends) * len(in_llm)
    assert policy.num_steps == spec.policy.num_steps
    side = spec.suite.image_px
    assert {picture.shape for picture in inputs.pictures} == {(side, side, 3)}
    (observation,) = called
    assert observation.instruction in instructions(spec.suite)
    after = reference.policy.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_nothing_is_rehearsed_where_building_takes_long_or_nothing_is_compiled(
    trial_spec: TrialSpec,
    reference: ReferencePolicy,
    compiled: Compiled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(replace(trial_spec, quant=EXPERT_W4A8), reference, tmp_path)
    monkeypatch.undo()  # this is a CPU
    run(asked(trial_spec, EXPERT_W4A8), reference, tmp_path)
    assert not compiled
