"""Launches and memory of a call in one CUDA graph; `test_policy_contract.py` tests the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pi05_inputs import INSTRUCTIONS, noise_of, seen

from duqsweep.inference.compile import compile_policy
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.spec import PolicySpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Pi05Policy:
    """In bfloat16, as on a GPU."""
    folder = tmp_path_factory.mktemp("pi05")
    write_random(folder, RandomPi05(small_sizes()))
    return load_policy(PolicySpec("pi05_libero", str(folder)), "cuda")


def test_launches_are_those_of_one_call(policy: Pi05Policy) -> None:
    fast = compile_policy(policy)
    launched = fast.launches(seen(), noise_of(policy))
    layers = small_sizes().expert.depth
    assert launched["expert_attention"] == layers * policy.num_steps
    assert launched["expert_euler_step"] == policy.num_steps + 1
    assert policy.launches(seen(), noise_of(policy)) == {}


def test_calls_that_follow_each_other_at_once_do_not_mix_their_inputs(policy: Pi05Policy) -> None:
    fast = compile_policy(policy)
    words = (INSTRUCTIONS[0], f"{INSTRUCTIONS[0]} and the bowl")
    cases = [(seen(words[i % 2], seed=i), noise_of(policy, seed=i)) for i in range(6)]
    first = [fast.act_normalised(*case) for case in cases]
    for _ in range(20):
        for case, expected in zip(cases, first, strict=True):
            assert np.array_equal(fast.act_normalised(*case), expected)


def test_prompts_of_different_lengths_share_the_graph_of_the_images(policy: Pi05Policy) -> None:
    from duqsweep.inference.graphed_call import GraphedCall  # needs Triton

    call = compile_policy(policy).call
    assert isinstance(call, GraphedCall)
    graphs = [
        call.graphs(policy.frontend.inputs(seen(words), noise_of(policy)))
        for words in (INSTRUCTIONS[0], f"{INSTRUCTIONS[0]} and the bowl")
    ]
    assert graphs[0][0] is graphs[1][0]
    assert graphs[0][1] is not graphs[1][1]


@pytest.mark.parametrize("side", [224, 256, 360])
def test_gpu_and_cpu_make_the_same_pixels_of_a_picture(policy: Pi05Policy, side: int) -> None:
    pictures = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    here = policy.preprocessing.pixels(pictures)
    there = policy.preprocessing.pixels(pictures.cuda()).cpu()
    steps = (here - there).abs() * 127.5
    assert steps.max() < 1.01  # sums that end on a half may be rounded to either side
    assert (steps > 0.01).float().mean() < 5e-3  # 1.6e-3 of a random picture of 256 px, on an H200


def test_no_weight_is_held_beside_the_graphs_own(policy: Pi05Policy) -> None:
    before = torch.cuda.memory_allocated()
    fast = compile_policy(policy)
    held = torch.cuda.memory_allocated() - before
    own = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in fast.weights()}
    shared = {t.untyped_storage().data_ptr() for t in policy.weights()}
    assert held <= sum(size for place, size in own.items() if place not in shared) + 16e6
