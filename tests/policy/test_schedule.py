"""The times of denoising steps, and that a policy's calls follow them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.inference.compiled_expert import CompiledExpert
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.schedule import flow_times, step_sizes
from duqsweep.seams import Observation
from duqsweep.spec import Schedule, ScheduleKind

KINDS: tuple[ScheduleKind, ...] = ("uniform", "shifted", "cosine")


@given(st.integers(1, 100), st.sampled_from(KINDS), st.floats(0.01, 100))
def test_times_fall_from_one_to_zero_and_the_steps_fill_them(
    num_steps: int, kind: ScheduleKind, shift: float
) -> None:
    schedule = Schedule(kind, shift)
    times, sizes = flow_times(num_steps, schedule), step_sizes(num_steps, schedule)
    assert times.shape == (num_steps + 1,)
    assert times.dtype == torch.float32
    assert (times[0], times[-1]) == (1, 0)
    assert len(sizes) == num_steps
    assert min(sizes) > 0
    assert sum(sizes) == pytest.approx(1)
    fallen = 1 - torch.tensor([0.0, *sizes], dtype=torch.float64).cumsum(0)
    torch.testing.assert_close(fallen.float(), times, rtol=0, atol=1e-6)


def test_uniform_times_are_openpis_to_the_bit() -> None:
    for num_steps in (1, 3, 10, 49):
        expected = 1.0 - torch.arange(num_steps) / num_steps
        assert torch.equal(flow_times(num_steps)[:-1], expected)
        assert step_sizes(num_steps) == (1 / num_steps,) * num_steps


def test_a_shift_makes_the_steps_near_the_noise_shorter() -> None:
    times = flow_times(4, Schedule("shifted", 3.0))
    torch.testing.assert_close(times, torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0]))
    mirrored = flow_times(4, Schedule("shifted", 1 / 3))
    torch.testing.assert_close(mirrored, 1 - times.flip(0))
    torch.testing.assert_close(flow_times(7, Schedule("shifted", 1.0)), flow_times(7))


def test_cosine_is_shortest_at_both_ends() -> None:
    root = math.sqrt(0.5) / 2
    expected = torch.tensor([1.0, 0.5 + root, 0.5, 0.5 - root, 0.0])
    torch.testing.assert_close(flow_times(4, Schedule("cosine")), expected)


@pytest.mark.parametrize("schedule", [Schedule("shifted", 4.0), Schedule("cosine")])
@torch.no_grad()
def test_calls_take_the_steps_of_their_schedule(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray, schedule: Schedule
) -> None:
    network, steps = policy.module, 3
    inputs = policy.frontend.inputs(observation, noise)
    pictures = torch.from_numpy(np.stack(inputs.pictures))
    encoded = network.encode_images(policy.preprocessing.pixels(pictures)[None])
    cache = network.prefix(encoded, torch.from_numpy(inputs.prompt())[None])
    x = torch.from_numpy(noise)[None]
    times = flow_times(steps, schedule)
    for begin, end in itertools.pairwise(times):
        x = x - (begin - end) * network.velocity(x, cache, network.modulation(begin[None]))
    eager = policy.copy(steps, schedule).act_normalised(observation, noise)
    np.testing.assert_allclose(eager, x[0, :, :7].numpy(), atol=1e-5)
    even = policy.copy(steps).act_normalised(observation, noise)
    assert np.abs(eager - even).max() > 1e-3
    fused = CompiledExpert(network, steps, schedule=schedule)
    actions = fused.denoise(torch.from_numpy(noise), fused.prepare(cache))
    torch.testing.assert_close(actions, x[0], rtol=0, atol=1e-5)


def test_one_step_is_the_same_on_every_schedule(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    calls = [policy.copy(1, Schedule(kind)).act_normalised(observation, noise) for kind in KINDS]
    assert all(np.array_equal(call, calls[0]) for call in calls)
