"""One policy call: deterministic given its noise, and as many expert forwards as steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from duqsweep.checkpoint.sizes import EXPERT, LLM, linear_layers
from duqsweep.errors import EvaluationError
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.seams import Observation, Policy


def count_calls(policy: Pi05Policy, name: str) -> list[int]:
    calls: list[int] = []
    layer = policy.module.get_submodule(name)
    layer.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[1]))
    return calls


def test_equal_noise_gives_equal_actions(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    first = policy.act(observation, noise)
    assert first.shape == (policy.horizon, 7)
    assert np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(first, policy.act(observation, noise))


def test_other_noise_image_state_or_words_give_other_actions(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    first = policy.act_normalised(observation, noise)
    others = [
        dataclasses.replace(observation, instruction="pick up the cube"),
        dataclasses.replace(observation, eef_pos=observation.eef_pos + 0.1),
        dataclasses.replace(
            observation, images={**observation.images, "wrist": observation.images["agentview"]}
        ),
    ]
    for other in others:
        assert np.abs(policy.act_normalised(other, noise) - first).max() > 1e-6
    assert np.abs(policy.act_normalised(observation, -noise) - first).max() > 1e-3


def test_the_prefix_runs_once_a_call_and_the_expert_once_a_step(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    prefix = count_calls(policy, f"{LLM}.layers.0.mlp.up_proj")
    expert = count_calls(policy, f"{EXPERT}.layers.2.mlp.down_proj")
    policy.act(observation, noise)
    assert len(prefix) == 1
    assert expert == [policy.horizon] * policy.num_steps


def test_every_listed_layer_runs_in_a_call(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    calls = {name: count_calls(policy, name) for name in linear_layers(policy.preprocessing.sizes)}
    policy.act(observation, noise)
    assert [name for name, seen in calls.items() if not seen] == []


@pytest.mark.parametrize("num_steps", [1, 3])
def test_actions_are_eulers_of_the_flow(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray, num_steps: int
) -> None:
    network = policy.module
    inputs = policy.frontend.inputs(observation, noise)
    pictures = torch.from_numpy(np.stack(inputs.pictures))
    with torch.no_grad():
        encoded = network.encode_images(policy.preprocessing.pixels(pictures)[None])
        cache = network.prefix(encoded, torch.from_numpy(inputs.prompt())[None])
        x, time = torch.from_numpy(noise)[None], 1.0
        while time > 0.5 / num_steps:
            velocity = network.velocity(x, cache, network.modulation(torch.tensor([time])))
            x = x - velocity / num_steps
            time -= 1 / num_steps
    answer = policy.copy(num_steps).act_normalised(observation, noise)
    np.testing.assert_allclose(answer, x[0, :, :7].numpy(), atol=1e-5)


def test_a_copy_shares_tensors_but_not_modules(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    twin = policy.copy(policy.num_steps)
    name = f"{EXPERT}.layers.0.mlp.up_proj"
    ours, theirs = policy.module.get_submodule(name), twin.module.get_submodule(name)
    assert ours is not theirs
    assert ours.weight.data_ptr() == theirs.weight.data_ptr()
    before = policy.act(observation, noise)
    twin.module.get_submodule(f"{EXPERT}.layers.0.mlp").up_proj = torch.nn.Linear(32, 56)
    np.testing.assert_array_equal(policy.act(observation, noise), before)
    assert np.abs(twin.act(observation, noise) - before).max() > 0


def test_the_parts_of_a_call_are_timed(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    parts = policy.time_parts(observation, noise)
    assert list(parts) == ["vision", "llm", "dit"]
    assert min(parts.values()) > 0


def test_pictures_of_another_size_are_resampled(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    larger = {
        name: picture.repeat(2, 0).repeat(2, 1) for name, picture in observation.images.items()
    }
    answer = policy.act_normalised(dataclasses.replace(observation, images=larger), noise)
    assert np.isfinite(answer).all()


def test_a_missing_camera_is_named(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    blind = dataclasses.replace(observation, images={"agentview": observation.images["agentview"]})
    with pytest.raises(EvaluationError, match="wrist"):
        policy.act(blind, noise)


def test_it_is_the_policy_of_the_seam(policy: Pi05Policy) -> None:
    seam: Policy = policy
    assert (seam.horizon, seam.action_dim, seam.num_steps) == (5, 9, 10)
    seam.synchronize()
