"""A replayed policy does what the eager one does, to the bit, and its layers' hooks see it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
        self, function: Callable[..., Any], given: Sequence[Tensor], stream: Any, pool: Any
    ) -> None:
        self.given = [tensor.clone() for tensor in given]
        self.function = function
        self.result = function(*self.given)

    def replay(self) -> None:
        for place, value in zip(flat(self.result), flat(self.function(*self.given)), strict=True):
            place.copy_(value)


class Nothing:
    """A stream or an event where everything is done at once."""

    def __init__(self, device: object = None) -> None:
        pass

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def wait_stream(self, other: object) -> None:
        pass


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
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, Nothing)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
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


def test_calls_that_overlap_are_equal_to_the_bit(policy: Pi05Policy, quick: Policy) -> None:
    assert quick.calls_at_once == 2
    cases = [(seen(INSTRUCTIONS[i % 2], i), noise_of(policy, i)) for i in range(8)]
    expected = [policy.act(*case) for case in cases]
    for _ in range(2):  # the first time, some of them are captured
        begun = [quick.begin(*case) for case in cases[:2]]
        for number, wanted in enumerate(expected):
            assert np.array_equal(begun.pop(0).wait(), wanted)
            if number + 2 < len(cases):
                begun.append(quick.begin(*cases[number + 2]))


def test_calls_that_are_waited_for_are_captured_once(policy: Pi05Policy, quick: Policy) -> None:
    case = (seen(INSTRUCTIONS[0], 0), noise_of(policy, 0))
    for _ in range(3):
        quick.act(*case)
    call = quick.call  # type: ignore[attr-defined]
    assert [len(lane._captured) for lane in call._lanes] == [3, 0]


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
