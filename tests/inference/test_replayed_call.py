"""A replayed policy does what the eager one does, to the bit, and its layers' hooks see it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pi05_inputs import INSTRUCTIONS, noise_of, seen
from torch import Tensor

from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.inference import replayed_call
from duqsweep.inference.replayed_call import Captured, ReplayedCall, replayed
from duqsweep.policy.called_policy import CalledPolicy
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.quant.calibrate import LayerStats, calibrate
from duqsweep.seams import Policy
from duqsweep.spec import PolicySpec, QuantSpec

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Repeated(Captured):
    """Where there are no graphs: what a graph does, i.e. the same on the same memory."""

    def __init__(
        self, function: Callable[..., Any], given: Sequence[Tensor], device: torch.device, pool: Any
    ) -> None:
        self.given = [tensor.clone() for tensor in given]
        self.function = function
        self.result = function(*self.given)

    def replay(self) -> None:
        for place, value in zip(flat(self.result), flat(self.function(*self.given)), strict=True):
            place.copy_(value)


def flat(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [t for pair in result for t in pair]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Pi05Policy:
    folder = tmp_path_factory.mktemp("pi05")
    write_random(folder, RandomPi05(small_sizes()))
    return load_policy(PolicySpec("pi05_libero", str(folder), num_steps=3), DEVICE)


@pytest.fixture
def quick(policy: Pi05Policy, monkeypatch: pytest.MonkeyPatch) -> Policy:
    if DEVICE == "cuda":
        return replayed(policy)
    assert replayed(policy) is policy
    monkeypatch.setattr(replayed_call, "Captured", Repeated)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    return CalledPolicy(policy.frontend, policy.num_steps, ReplayedCall.of(policy))


def test_actions_are_equal_to_the_bit_at_every_shape_and_in_any_order(
    policy: Pi05Policy, quick: Policy
) -> None:
    cases = [
        (seen(INSTRUCTIONS[i % 2], i, side), noise_of(policy, i))
        for i in range(6)
        for side in (224, 256)
    ]
    expected = [policy.act_normalised(*case) for case in cases]
    for case, actions in [*zip(cases, expected, strict=True)] * 2:
        assert np.array_equal(quick.act_normalised(*case), actions)


def test_calibration_finds_the_same_maxima(policy: Pi05Policy, quick: Policy) -> None:
    watched = dict.fromkeys(linear_layers(small_sizes()), (2, 2))

    def statistics(acting: Policy) -> dict[str, LayerStats]:
        def run() -> None:
            for i in range(6):
                acting.act(seen(INSTRUCTIONS[i % 2], i), noise_of(acting, i))

        return calibrate(policy.module, watched, QuantSpec(), run)

    expected, found = statistics(policy), statistics(quick)
    assert expected.keys() == found.keys() == watched.keys()
    assert all(torch.equal(found[name].act_max, expected[name].act_max) for name in watched)
