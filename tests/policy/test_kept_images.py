"""Features of an unchanged picture are kept, and a call gives the same to the bit with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.checkpoint.sizes import VISION
from duqsweep.errors import EvaluationError
from duqsweep.inference.compile import compile_policy
from duqsweep.policy.frontend import Frontend
from duqsweep.policy.kept_images import KeptImages
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.seams import Observation
from duqsweep.spec import UNIFORM


def picture(value: int) -> NDArray[np.uint8]:
    return np.full((4, 4, 3), value, dtype=np.uint8)


def test_only_pictures_that_changed_are_encoded() -> None:
    seen: list[int] = []

    def encode(given: NDArray[np.uint8]) -> Tensor:
        seen.append(int(given[0, 0, 0]))
        return torch.tensor([float(given.sum())])

    kept = KeptImages(encode)
    kept.features([picture(1), picture(2)])
    found = kept.features([picture(1), picture(3)])
    assert seen == [1, 2, 3]
    assert torch.cat(found).tolist() == [48.0, 144.0]
    kept.features([picture(3), picture(1)])  # of another camera
    assert seen == [1, 2, 3, 3, 1]
    kept.features([picture(3)])
    kept.features([picture(3), picture(1)])  # a camera that was away
    assert seen == [1, 2, 3, 3, 1, 1]
    kept.forget()
    kept.features([picture(3)])
    assert seen[-1] == 3
    assert len(seen) == 7


def test_a_picture_whose_memory_is_written_to_again_is_seen_to_change() -> None:
    shared = picture(1)
    kept = KeptImages(lambda given: torch.tensor(float(given[0, 0, 0])))
    kept.features([shared])
    shared[1, 2, 0] = shared[0, 0, 0] = 5
    assert kept.features([shared])[0].item() == 5


@pytest.fixture
def other(observation: Observation) -> Observation:
    """The same picture of the first camera, another of the second."""
    images = {**observation.images, "wrist": observation.images["wrist"][::-1].copy()}
    return dataclasses.replace(observation, images=images)


def test_calls_are_the_same_to_the_bit_whatever_was_kept(
    policy: Pi05Policy, observation: Observation, other: Observation, noise: np.ndarray
) -> None:
    reusing = policy.copy(2, UNIFORM, reuse_images=True)
    batches: list[int] = []
    first = reusing.module.get_submodule(f"{VISION}.encoder.layers.0.mlp.fc1")
    first.register_forward_pre_hook(lambda _, given: batches.append(given[0].shape[0]))
    for seen in (observation, other, other, observation):
        fresh = policy.copy(2, UNIFORM, reuse_images=True).act(seen, noise)
        np.testing.assert_array_equal(reusing.act(seen, noise), fresh)
        joint = policy.copy(2).act_normalised(seen, noise)
        np.testing.assert_allclose(reusing.act_normalised(seen, noise), joint, atol=1e-5)
    assert batches == [1, 1, 1, 1]  # two cameras, then three times the second or none


def test_what_is_timed_and_counted_is_a_whole_call(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    reusing = policy.copy(2, UNIFORM, reuse_images=True)
    calls: list[int] = []
    first = reusing.module.get_submodule(f"{VISION}.encoder.layers.0.mlp.fc1")
    first.register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(2):
        reusing.time_parts(observation, noise)
        reusing.launches(observation, noise)
    assert len(calls) == 8


def test_a_call_in_cuda_graphs_refuses_to_keep_images(policy: Pi05Policy) -> None:
    reusing = policy.copy(2, UNIFORM, reuse_images=True)
    reusing.frontend = Frontend(policy.preprocessing, torch.device("cuda"))
    with pytest.raises(EvaluationError, match=r"policy\.reuse_images must be false"):
        compile_policy(reusing)


def test_a_compiled_policy_on_a_cpu_keeps_them(
    policy: Pi05Policy, observation: Observation, noise: np.ndarray
) -> None:
    with torch.compiler.set_stance("force_eager"):
        fast = compile_policy(policy.copy(2, UNIFORM, reuse_images=True))
        first = fast.act(observation, noise)
        assert np.array_equal(fast.act(observation, noise), first)
    assert fast.call.kept is not None  # type: ignore[attr-defined]
