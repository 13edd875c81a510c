"""Activation statistics are collected once, at every denoising step, for all quantized layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shallow_policy import SIZES
from worker_parts import PaperSimulator

from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.seams import Observation
from duqsweep.spec import LayerRule, QuantSpec, TrialSpec
from duqsweep.worker.cache import ReferencePolicy, WorkerCache
from duqsweep.worker.noise import flow_noise
from duqsweep.worker.observations import FixedObservations

LAYERS = linear_layers(SIZES)
DIT = (LayerRule("gemma_expert", 4, 8),)
Ready = tuple[WorkerCache, ReferencePolicy]


def observed(position: float) -> Observation:
    simulator = PaperSimulator()
    simulator.position = position
    return simulator.observe()


OBSERVATIONS = FixedObservations("paper", (observed(0.1), observed(2.0)), (observed(1.0),))


@pytest.fixture
def ready(trial_spec: TrialSpec) -> Ready:
    bench = WorkerCache()
    return bench, bench.reference(trial_spec.policy, "cpu")


def statistics(ready: Ready, quant: QuantSpec):
    bench, reference = ready
    bits = select_layers(quant, LAYERS)
    return bench.statistics(reference, OBSERVATIONS, bits, quant, LAYERS)


def test_trials_of_other_methods_share_one_calibration(ready: Ready) -> None:
    first = statistics(ready, QuantSpec(rules=DIT))
    assert statistics(ready, QuantSpec(rules=DIT, block_size=64, smoothing=0.5)) is first
    vision = (LayerRule("vision_tower", 8, 8),)
    assert statistics(ready, QuantSpec(rules=vision)) is first
    assert set(first) == set(LAYERS)
    assert first[next(iter(LAYERS))].samples is None


def test_the_greedy_rotation_has_a_calibration_with_samples(ready: Ready) -> None:
    greedy = statistics(ready, QuantSpec(rules=DIT, rotation="greedy"))
    assert all(stats.samples is not None for stats in greedy.values())
    assert statistics(ready, QuantSpec(rules=DIT, rotation="greedy", block_size=64)) is greedy
    plain = statistics(ready, QuantSpec(rules=DIT))
    assert plain is not greedy
    for name, stats in plain.items():
        assert torch.equal(stats.act_max, greedy[name].act_max)


def test_static_scales_are_kept_for_the_latest_settings_alone(ready: Ready) -> None:
    static = QuantSpec(rules=DIT, act_scale="static")
    first = statistics(ready, static)
    assert statistics(ready, static) is first
    assert set(first) == {name for name in LAYERS if "gemma_expert" in name}
    assert statistics(ready, QuantSpec(rules=DIT, act_scale="static", block_size=32)) is not first
    assert statistics(ready, static) is not first


def test_maxima_are_over_all_observations_and_denoising_times(ready: Ready) -> None:
    _, reference = ready
    name = next(name for name in LAYERS if "gemma_expert" in name)
    seen: list[torch.Tensor] = []
    layer = reference.policy.module.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    policy = reference.policy
    for number, observation in enumerate(OBSERVATIONS.calibration):
        policy.act(observation, flow_noise((0, number), policy.horizon, policy.action_dim))
    handle.remove()
    times = 10  # the reference's, whatever the trial's
    assert len(seen) == times * len(OBSERVATIONS.calibration)
    found = statistics(ready, QuantSpec(rules=DIT))[name].act_max
    wanted = torch.stack([x.reshape(-1, x.shape[-1]).abs().amax(0) for x in seen])
    assert torch.equal(found, wanted.amax(0))
    assert not torch.equal(found, wanted[::times].amax(0))  # the first time alone is not enough


@pytest.mark.parametrize("rotation", ["hadamard", "greedy", "svd"])
def test_the_image_encoder_can_be_quantized(ready: Ready, rotation: str) -> None:
    _, reference = ready
    quant = QuantSpec(rules=(LayerRule("vision_tower", 8, 8),), rotation=rotation)
    bits = select_layers(quant, LAYERS)
    assert len(bits) == 2 * 6
    policy = reference.policy.copy(10)
    freeze(policy.module, bits, quant, statistics(ready, quant), None, "random")
    noise = flow_noise((1,), policy.horizon, policy.action_dim)
    observation = OBSERVATIONS.measured[0]
    exact = reference.policy.act_normalised(observation, noise)
    difference = np.sqrt(np.mean((policy.act_normalised(observation, noise) - exact) ** 2))
    assert 0 < difference < 0.1
