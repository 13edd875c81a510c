"""The whole call in one CUDA graph, against the same policy layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from duqsweep.inference.compile import compile_policy
from duqsweep.inference.compiled_policy import CompiledPolicy
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.seams import Observation
from duqsweep.spec import PolicySpec, QuantSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

INSTRUCTIONS = ("pick up the red cube", "pick up the bowl and place it in the tray", "stove")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Pi05Policy:
    """In bfloat16, as on a GPU."""
    folder = tmp_path_factory.mktemp("pi05")
    write_random(folder, RandomPi05(small_sizes()))
    return load_policy(PolicySpec("pi05_libero", str(folder)), "cuda")


def seen(instruction: str, seed: int = 0) -> Observation:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    return Observation(
        images={"agentview": pixels[0], "wrist": pixels[1]},
        eef_pos=np.array([0.1, -0.2, 0.9]),
        eef_quat=np.array([0.98, 0.1, -0.1, 0.14]),
        gripper_qpos=np.array([0.03, -0.03]),
        instruction=instruction,
    )


def noise_of(policy: Pi05Policy, seed: int = 1) -> np.ndarray:
    shape = (policy.horizon, policy.action_dim)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def graphed(policy: Pi05Policy) -> CompiledPolicy:
    return compile_policy(policy, QuantSpec())


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_a_graph_gives_the_actions_of_the_eager_policy_at_every_length(policy: Pi05Policy) -> None:
    fast = graphed(policy)
    for seed in (1, 2):
        for instruction in INSTRUCTIONS:
            arguments = seen(instruction, seed), noise_of(policy, seed)
            expected = policy.act_normalised(*arguments)
            assert relative(fast.act_normalised(*arguments), expected) < 3e-2  # of bfloat16


def test_a_second_call_does_not_see_the_first(policy: Pi05Policy) -> None:
    fast = graphed(policy)
    arguments = seen(INSTRUCTIONS[0]), noise_of(policy)
    first = fast.act_normalised(*arguments)
    fast.act_normalised(seen(INSTRUCTIONS[0], 5), noise_of(policy, 6))
    assert np.array_equal(fast.act_normalised(*arguments), first)


def test_the_parts_are_timed_and_the_reference_is_untouched(policy: Pi05Policy) -> None:
    fast = graphed(policy)
    arguments = seen(INSTRUCTIONS[1]), noise_of(policy)
    before = policy.act_normalised(*arguments)
    parts = fast.time_parts(*arguments)
    assert set(parts) == {"vision", "llm", "dit"}
    assert all(0 < seconds < 1 for seconds in parts.values())
    assert np.array_equal(policy.act_normalised(*arguments), before)


def test_launches_are_those_of_one_call(policy: Pi05Policy) -> None:
    fast = graphed(policy)
    launched = fast.launches(seen(INSTRUCTIONS[0]), noise_of(policy))
    layers = small_sizes().expert.depth
    assert launched["expert_attention"] == layers * policy.num_steps
    assert launched["expert_step"] == policy.num_steps + 1
    assert policy.launches(seen(INSTRUCTIONS[0]), noise_of(policy)) == {}


def test_no_weight_is_held_beside_the_graphs_own(policy: Pi05Policy) -> None:
    before = torch.cuda.memory_allocated()
    fast = graphed(policy)
    held = torch.cuda.memory_allocated() - before
    own = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in fast.weights()}
    shared = {t.untyped_storage().data_ptr() for t in policy.weights()}
    assert held <= sum(size for place, size in own.items() if place not in shared) + 16e6
