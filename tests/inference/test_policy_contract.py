"""The contract of `seams.Policy`, for eager, copied and compiled policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from pi05_inputs import INSTRUCTIONS, noise_of, seen

from duqsweep.errors import EvaluationError
from duqsweep.inference.compile import compile_policy
from duqsweep.inference.replayed_call import replayed
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.seams import EagerPolicy, Policy
from duqsweep.spec import PolicySpec

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BOUND = 3e-2 if DEVICE == "cuda" else 1e-5  # bfloat16 on a GPU

KINDS: dict[str, Callable[[Pi05Policy], Policy]] = {
    "eager": lambda policy: policy,
    "a copy": lambda policy: policy.copy(policy.num_steps),
    "compiled": compile_policy,
    "replayed": replayed,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Pi05Policy:
    folder = tmp_path_factory.mktemp("pi05")
    sizes = small_sizes()
    if DEVICE == "cpu":  # 32 patches of two pictures, not 512
        sizes = replace(sizes, vision=replace(sizes.vision, patch_px=56))
    write_random(folder, RandomPi05(sizes))
    return load_policy(PolicySpec("pi05_libero", str(folder), num_steps=3), DEVICE)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_compiled_on_a_cpu() -> Iterator[None]:
    """Run code given to `torch.compile` without compiling it, which these tests are not about."""
    stance = "default" if DEVICE == "cuda" else "force_eager"
    with torch.compiler.set_stance(stance):
        yield


@pytest.fixture(scope="module", params=KINDS)
def policy(reference: Pi05Policy, request: pytest.FixtureRequest) -> Policy:
    return KINDS[request.param](reference)


def layout(policy: EagerPolicy) -> dict[str, tuple[object, ...]]:
    tensors = {**dict(policy.module.named_parameters()), **dict(policy.module.named_buffers())}
    return {
        name: (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.untyped_storage().nbytes())
        for name, tensor in tensors.items()
    }


def test_it_reports_the_shapes_of_its_inputs_and_outputs(policy: Policy) -> None:
    assert (policy.horizon, policy.action_dim, policy.num_steps) == (
        small_sizes().horizon,
        small_sizes().action_dim,
        3,
    )
    actions = policy.act(seen(), noise_of(policy))
    assert actions.shape == (policy.horizon, 7)
    assert np.abs(actions).max() <= 1
    assert policy.act_normalised(seen(), noise_of(policy)).shape == (policy.horizon, 7)
    pictures, tokens = policy.reads(seen())
    assert pictures == 2
    assert policy.reads(seen(INSTRUCTIONS[1]))[1] > tokens > 0


def test_it_acts_as_the_reference_at_every_length_of_the_prompt(
    policy: Policy, reference: Pi05Policy
) -> None:
    for seed, instruction in enumerate(INSTRUCTIONS):
        arguments = seen(instruction, seed), noise_of(policy, seed)
        expected = reference.act_normalised(*arguments)
        error = np.linalg.norm(policy.act_normalised(*arguments) - expected)
        assert error <= BOUND * np.linalg.norm(expected)


def test_equal_inputs_give_equal_actions_whatever_came_between(policy: Policy) -> None:
    first = policy.act_normalised(seen(), noise_of(policy))
    between = policy.act_normalised(seen(seed=5), noise_of(policy, 6))
    assert np.array_equal(policy.act_normalised(seen(), noise_of(policy)), first)
    assert np.abs(between - first).max() > 1e-3


def test_calls_that_have_begun_together_give_what_each_gives_alone(policy: Policy) -> None:
    cases = [(seen(INSTRUCTIONS[i % 2], seed=i), noise_of(policy, i)) for i in range(6)]
    expected = [policy.act(*case) for case in cases]
    pending, found = [], []
    for case in cases * 5:
        pending.append(policy.begin(*case))
        if len(pending) == policy.calls_at_once:
            found.append(pending.pop(0).wait())
    found += [one.wait() for one in pending]
    assert all(np.array_equal(*pair) for pair in zip(found, expected * 5, strict=True))


def test_calls_whose_actions_nobody_reads_leave_no_trace(policy: Policy) -> None:
    expected = policy.act(seen(), noise_of(policy))
    for seed in range(5):
        policy.begin(seen(seed=seed), noise_of(policy, seed))
    begun = policy.begin(seen(), noise_of(policy))
    while not begun.is_over():
        pass
    assert np.array_equal(begun.wait(), expected)


def test_pictures_of_any_size_are_read_the_same_in_every_policy(
    policy: Policy, reference: Pi05Policy
) -> None:
    for side in (256, 224, 300):
        arguments = seen(seed=side, side=side), noise_of(policy, side)
        expected = reference.act_normalised(*arguments)
        error = np.linalg.norm(policy.act_normalised(*arguments) - expected)
        assert error <= BOUND * np.linalg.norm(expected)


def test_a_refused_prompt_leaves_the_policy_as_it_was(policy: Policy) -> None:
    before = policy.act_normalised(seen(), noise_of(policy))
    with pytest.raises(EvaluationError, match="reads 200 tokens"):
        policy.act_normalised(seen("pick up " * 200, seed=5), noise_of(policy, 6))
    assert np.array_equal(policy.act_normalised(seen(), noise_of(policy)), before)


def test_actions_are_not_overwritten_by_the_next_call(policy: Policy) -> None:
    first = policy.act_normalised(seen(), noise_of(policy))
    kept = first.copy()
    policy.act_normalised(seen(seed=5), noise_of(policy, 6))
    assert np.array_equal(first, kept)


def test_its_parts_are_timed(policy: Policy) -> None:
    parts = policy.time_parts(seen(), noise_of(policy))
    assert list(parts) == ["vision", "llm", "dit"]
    assert all(0 < seconds < 60 for seconds in parts.values())


def test_it_names_weights_and_launches(policy: Policy) -> None:
    held = sum(weight.numel() for weight in policy.weights())
    assert held > 1e6
    launched = policy.launches(seen(), noise_of(policy))
    assert all(count > 0 for count in launched.values())
    policy.synchronize()


def test_compiling_does_not_change_the_references_tensors_values_or_strides(
    reference: Pi05Policy,
) -> None:
    arguments = seen(), noise_of(reference)
    before, expected = layout(reference), reference.act_normalised(*arguments)
    values = {name: value.clone() for name, value in reference.module.state_dict().items()}
    compiled = compile_policy(reference)
    compiled.act(*arguments)
    assert layout(reference) == before
    state = reference.module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in values.items())
    assert np.array_equal(reference.act_normalised(*arguments), expected)


def test_a_policy_can_be_copied_and_compiled_again_after_compiling(reference: Pi05Policy) -> None:
    arguments = seen(), noise_of(reference)
    first = compile_policy(reference).act_normalised(*arguments)
    fewer = reference.copy(1)
    assert (fewer.num_steps, reference.num_steps) == (1, 3)
    assert np.abs(fewer.act_normalised(*arguments) - first).max() > 1e-4
    again = compile_policy(reference.copy(3)).act_normalised(*arguments)
    assert np.linalg.norm(again - first) <= BOUND * np.linalg.norm(first)
